"""The macros for point-in-time features equal a slow and obvious program, and nothing from the future gets in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import chain
from pathlib import Path

import duckdb
import jinja2
from hypothesis import given, settings
from hypothesis import strategies as st

MACROS = Path(__file__).resolve().parents[2] / "dbt_features" / "macros" / "point_in_time.sql"
NOON = datetime.fromisoformat("2024-05-01T12:00")
HOUR = timedelta(hours=1)
WINDOWS = {"1h": timedelta(hours=1), "6h": timedelta(hours=6)}
MAX_AGE = timedelta(hours=3)
examples = settings(max_examples=40)


@dataclass(frozen=True, order=True)
class Fact:
    """Something that happened to `key` and was known later."""

    key: str
    event_time: datetime
    available_at: datetime
    value: int | None


Row = tuple[str, datetime]
CONNECTION = duckdb.connect()


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    # Half hours, so that edges of windows are met often.
    return st.integers(first, last).map(lambda halves: NOON + halves * HOUR / 2)


keys = st.sampled_from(["a", "b", "c"])
rows = st.lists(st.tuples(keys, moments(-8, 8)), max_size=12, unique=True)
facts = st.lists(
    st.builds(
        lambda key, event, late, value: Fact(key, event, event + late * HOUR / 2, value),
        keys,
        moments(-24, 10),
        st.integers(0, 8),
        st.one_of(st.none(), st.integers(-5, 5)),
    ),
    max_size=25,
    unique_by=lambda fact: (fact.key, fact.event_time, fact.available_at),
)


def table(name: str, records: Sequence[Sequence[object]], columns: dict[str, str]) -> None:
    declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    CONNECTION.execute(f"create or replace temp table {name} ({declared})")
    if records:
        row = f"({', '.join('?' * len(columns))})"
        CONNECTION.execute(f"insert into {name} values {', '.join([row] * len(records))}", [*chain(*records)])


def run(call: str, asked: list[Row], known: list[Fact]) -> list[tuple[object, ...]]:
    """The rows that a macro call selects, sorted by key and as_of."""
    table("asked_rows", asked, {"key": "varchar", "as_of": "timestamp"})
    records = [(fact.key, fact.event_time, fact.available_at, fact.value) for fact in known]
    kinds = {"key": "varchar", "event_time": "timestamp", "available_at": "timestamp", "value": "integer"}
    table("known_facts", records, kinds)
    return CONNECTION.execute(f"select * from ({rendered(call)}) order by key, as_of").fetchall()


@cache
def rendered(call: str) -> str:
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(MACROS.read_text() + call).render()


def newest(asked: list[Row], known: list[Fact], max_age: str = "") -> list[tuple[object, ...]]:
    age = f", max_age='{max_age}'" if max_age else ""
    return run(
        "{{ as_of_join('asked_rows', 'known_facts', ['key'], ['event_time', 'value']" + age + ") }}", asked, known
    )


def sums(asked: list[Row], known: list[Fact]) -> list[tuple[object, ...]]:
    """Of keys asked about few moments, of others, and of both kinds at once: never another answer."""
    call = (
        "{{ window_aggregates('asked_rows', 'known_facts', ['key'], {'total': 'value', 'n': '1'}, "
        "{'1h': '1 hour', '6h': '6 hours'}, few=%d) }}"
    )
    by_range, by_running_sums, by_either = (run(call % few, asked, known) for few in (64, 0, 2))
    assert by_range == by_running_sums == by_either
    return by_range


def slow_newest(asked: list[Row], known: list[Fact], max_age: timedelta | None = None) -> list[tuple[object, ...]]:
    found = []
    for key, as_of in sorted(asked):
        usable = [fact for fact in known if fact.key == key and fact.available_at <= as_of]
        best = max(usable, key=lambda fact: (fact.event_time, fact.available_at), default=None)
        if best is not None and max_age is not None and best.event_time <= as_of - max_age:
            best = None
        found.append((key, as_of, best and best.event_time, best and best.value))
    return found


def slow_sums(asked: list[Row], known: list[Fact]) -> list[tuple[object, ...]]:
    found = []
    for key, as_of in sorted(set(asked)):
        answer: list[object] = [key, as_of]
        for window in WINDOWS.values():
            seen = [fact for fact in known if fact.key == key and as_of - window < fact.available_at <= as_of]
            answer += [sum(fact.value or 0 for fact in seen), len(seen)]
        found.append(tuple(answer))
    return found


@examples
@given(asked=rows, known=facts)
def test_the_join_equals_the_slow_program(asked: list[Row], known: list[Fact]):
    assert newest(asked, known) == slow_newest(asked, known)
    assert newest(asked, known, "3 hours") == slow_newest(asked, known, MAX_AGE)


@examples
@given(asked=rows, known=facts)
def test_window_sums_equal_the_slow_program(asked: list[Row], known: list[Fact]):
    assert sums(asked, known) == slow_sums(asked, known)


@examples
@given(asked=rows, known=facts, future=facts, by=st.integers(1, 20))
def test_what_became_known_after_as_of_changes_no_row_whenever_it_happened(
    asked: list[Row], known: list[Fact], future: list[Fact], by: int
):
    last = max((as_of for _, as_of in asked), default=NOON)
    # The event lies anywhere, before as_of too: a correction of the past that came too late.
    late = [Fact(fact.key, fact.event_time, last + by * HOUR / 2, fact.value) for fact in future]
    late = list({(fact.key, fact.event_time): fact for fact in late}.values())
    assert newest(asked, [*known, *late]) == newest(asked, known)
    assert sums(asked, [*known, *late]) == sums(asked, known)


@examples
@given(asked=rows, known=facts, order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(asked: list[Row], known: list[Fact], order):
    mixed = order.sample(known, len(known))
    assert newest(asked, mixed) == newest(asked, known)
    assert sums(asked, mixed) == sums(asked, known)


def fact(hours: float, known: float | None = None, value: int = 1) -> Fact:
    """A fact so many hours from noon, known then or so many hours from noon."""
    return Fact("a", NOON + hours * HOUR, NOON + (hours if known is None else known) * HOUR, value)


def test_a_fact_of_the_very_moment_counts_and_one_a_moment_later_does_not():
    late = Fact("a", NOON, NOON + timedelta(microseconds=1), 9)
    assert newest([("a", NOON)], [fact(0, value=7), late])[0][-1] == 7
    assert sums([("a", NOON)], [fact(0, value=7), late])[0][2] == 7


def test_a_fact_as_old_as_the_limit_does_not_count():
    assert newest([("a", NOON)], [fact(-3)], "3 hours")[0][-1] is None
    assert newest([("a", NOON)], [fact(-2.5)], "3 hours")[0][-1] == 1
    assert sums([("a", NOON)], [fact(-1), fact(-6)])[0][2:] == (0, 0, 1, 1)


def test_an_old_event_that_was_known_late_never_wins_over_a_newer_one():
    assert newest([("a", NOON)], [fact(-1, value=7), fact(-5, known=-0.5, value=9)])[0][-1] == 7


def test_a_correction_counts_from_the_moment_on_at_which_it_was_known():
    known = [fact(-4, value=7), fact(-4, known=1, value=9)]
    asked = [("a", NOON), ("a", NOON + HOUR)]
    assert [row[-1] for row in newest(asked, known)] == [7, 9]


def test_rows_without_a_fact_are_kept():
    assert newest([("b", NOON), ("b", NOON)], [fact(-1)]) == [("b", NOON, None, None)] * 2
    assert sums([("b", NOON)], [fact(-1)]) == [("b", NOON, 0, 0, 0, 0)]


def test_one_clock_needs_no_second_look_at_the_facts():
    call = "{{ as_of_join('asked_rows', 'known_facts', ['key'], ['value'], '3 hours', event_time='available_at') }}"
    assert "qualify" not in jinja2.Environment().from_string(MACROS.read_text() + call).render()
    assert run(call, [("a", NOON)], [fact(-1, value=7), fact(-2, value=9)]) == [("a", NOON, 7)]


def test_money_stays_exact():
    CONNECTION.execute("create or replace temp table paid (key varchar, available_at timestamp, usd decimal(12, 2))")
    CONNECTION.executemany("insert into paid values ('a', ?, 0.10)", [[NOON - n * HOUR / 2] for n in range(10)])
    table("asked_rows", [("a", NOON)], {"key": "varchar", "as_of": "timestamp"})
    call = "{{ window_aggregates('asked_rows', 'paid', ['key'], {'usd': 'usd'}, {'6h': '6 hours'}) }}"
    sql = jinja2.Environment().from_string(MACROS.read_text() + call).render()
    assert CONNECTION.execute(sql).fetchall() == [("a", NOON, Decimal("1.00"))]
