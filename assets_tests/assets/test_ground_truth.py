"""Which prediction gets which outcome, and what is said of those that have none."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from assets_tests.judging import day
from assets_tests.records import prediction
from boucle.contracts.windows import Period
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.ground_truth import Joined, coverage_check, join_outcomes, outcomes
from boucle_platform.model_loop.steps.prediction_log import collect_predictions

SPEC = catalogue.spec_of("repurchase")
ASKED = day("1997-05-20")
MAY, JUNE = SPEC.period("1997-05"), SPEC.period("1997-06")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Customers 4, 7, 9 have features of 1 May; on 31 May an order of 4 is known, and that 9 never has an outcome."""
    made = Home(Settings(home=str(tmp_path)))
    with made.warehouse.connect() as connection:
        connection.execute(
            f"create table {SPEC.labels} ({SPEC.entity} varchar, as_of timestamp, label integer, known_at timestamp)"
        )
        connection.execute(
            f"insert into {SPEC.labels} values ('4', '1997-05-01', 1, '1997-05-31'), "
            "('9', '1997-05-01', null, '1997-05-31')"
        )
    yield made
    made.log.close()


def ask(home: Home, number: int, *, entity: str, as_of: datetime, at: datetime = ASKED, **changes: Any) -> None:
    """An answer made of the features of 1 May."""
    home.log.append(prediction(number, at=at, entity_key=entity, as_of=as_of, **changes))


def joined(home: Home, period: Period = MAY) -> Joined:
    collect_predictions(home, SPEC, [MAY, JUNE])
    return join_outcomes(home, SPEC, period)


def test_a_prediction_asked_between_two_feature_rows_gets_the_outcome_of_the_row_that_answered(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="4", as_of=day("1997-05-15"))
    found = joined(home)
    assert (found.rows, found.positives, found.due, found.coverage) == (2, 2, 2, 1.0)
    assert [f"{asked:%d %b}" for asked in outcomes(home, SPEC, "1997-05")["as_of"]] == ["01 May", "15 May"]
    assert coverage_check(found).passed


def test_of_features_that_the_caller_gave_nobody_knows_the_outcome(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), features_as_of=None)
    ask(home, 2, entity="4", as_of=day("1997-05-01"))
    found = joined(home)
    assert (found.rows, found.due, list(outcomes(home, SPEC, "1997-05")["prediction_id"])) == (1, 1, ["2"])


def test_where_all_features_were_given_no_outcome_is_due(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), features_as_of=None)
    assert joined(home).due == 0


def test_a_due_prediction_without_outcome_is_counted_and_warned_about(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="7", as_of=day("1997-05-15"))
    found = joined(home)
    check = coverage_check(found)
    assert (found.rows, found.due, found.coverage) == (1, 2, 0.5)
    assert not check.passed
    assert check.severity.value == "WARN"
    assert check.description == "1 of 2 due predictions have their outcome"


def test_without_a_due_prediction_coverage_is_not_known_and_not_passed(home: Home):
    found = joined(home)
    assert found.coverage is None
    assert not coverage_check(found).passed
    assert coverage_check(found).description == "no prediction was due in the period: nothing is known"


def test_a_prediction_that_never_gets_an_outcome_is_neither_due_nor_negative(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="9", as_of=day("1997-05-01"))
    found = joined(home)
    assert (found.rows, found.positives, found.due, found.void) == (1, 1, 1, 1)
    assert set(outcomes(home, SPEC, "1997-05")["entity_key"]) == {"4"}
    assert coverage_check(found).passed
    assert coverage_check(found).description == "1 of 1 due predictions have their outcome; 1 never get one"


def test_a_question_about_a_moment_whose_outcome_is_known_gets_it_in_the_period_of_the_question(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), at=day("1997-06-05"))
    assert (joined(home, MAY).rows, joined(home, MAY).due) == (0, 0)
    found = joined(home, JUNE)
    assert (found.rows, found.due, found.coverage) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("at", "period"), [("1997-05-01", MAY), ("1997-05-31", MAY), ("1997-06-01", JUNE), ("1997-06-30", JUNE)]
)
def test_each_prediction_gets_its_outcome_exactly_once(home: Home, at: str, period: Period):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), at=day(at))
    assert [joined(home, each).rows for each in (MAY, JUNE)] == [int(period == each) for each in (MAY, JUNE)]
