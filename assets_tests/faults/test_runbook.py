"""The runbook to the letter: each symptom is planted, its commands are run as they stand, and show what it says."""

import re
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from assets_tests.faults.loop_home import (
    NEWEST,
    PERIOD,
    SPEC,
    LoopHome,
    boucle,
    client,
    copied,
    opened,
    promote_second,
)
from boucle.contracts.traffic_plan import Strategy
from boucle.operations import pins
from boucle.policy.trials import TrafficPolicy
from boucle_adapters.landing_zone import landing_file, publish, read_landing

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
RUNBOOK = Path(__file__).resolve().parents[2] / "platform" / "docs" / "runbook.md"


class Entry(NamedTuple):
    """A symptom, its commands, and what they show."""

    symptom: str
    commands: list[list[str]]
    shown: list[str]


def entries() -> list[Entry]:
    """All but those that alerts point to, which say where to look first."""
    found = []
    for section in RUNBOOK.read_text().partition("\n# Alerts\n")[0].split("\n## ")[1:]:
        commands = re.search(r"```sh\n(.*?)```\n", section, re.DOTALL)
        seen = re.search(r"^To see: (.*?)(?:\. |\.\n)", section, re.DOTALL | re.MULTILINE)
        assert commands, section
        assert seen, section
        lines = [shlex.split(line) for line in commands[1].splitlines()]
        found.append(Entry(section.partition("\n")[0], lines, re.findall(r"`([^`]+)`", " ".join(seen[1].split()))))
    return found


def nothing(_: LoopHome) -> None:
    """The home as it is."""


def moved_alias(loop: LoopHome) -> None:
    client(loop.home).delete_registered_model_alias(SPEC.model, "production")


def no_traffic(loop: LoopHome) -> None:
    loop.home.state.close()
    with sqlite3.connect(loop.path / "state.db") as connection:
        connection.execute("delete from traffic_plan")
    connection.close()


def edited_row(loop: LoopHome) -> None:
    assert boucle(loop, "export-audit", "--to", str(loop.path / "audit.jsonl")).returncode == 0
    loop.home.state.close()
    with sqlite3.connect(loop.path / "state.db") as connection:
        connection.execute("update decision set document = replace(document, 'automatic', 'manual')")
    connection.close()


def begun_canary(loop: LoopHome) -> None:
    """Version 2 was promoted, and its canary has begun."""
    promote_second(loop, policy=TrafficPolicy(after_promotion=Strategy.CANARY))


def pinned(loop: LoopHome) -> None:
    pins.pin(loop.home.state, SPEC.name, reason="the sale is on", actor=loop.home.actor("user:ada", SPEC.name))


def refused_month(loop: LoopHome) -> None:
    """A tenth of the newest month's orders are of no CD."""
    file = landing_file(loop.home.settings.landing_dir, SPEC.name, "orders", NEWEST)
    rows = read_landing(file, SPEC.source("orders").column_names).rows[list(SPEC.source("orders").column_names)]
    rows.loc[rows.index[::10], "cds"] = "0"
    publish(rows, file)
    assert not loop.run(PERIOD, partition=NEWEST).succeeded


PLANTED: dict[str, Callable[[LoopHome], None]] = {
    "Answers look wrong since the last promotion": promote_second,
    "Production misses its objectives and is not rolled back": pinned,
    "A canary looks wrong, or nobody wants it any more": begun_canary,
    "The registry was away while something was decided": moved_alias,
    "An alias was moved or deleted by hand, or the check alias_equals_ledger is red": moved_alias,
    "A version was promoted and gets no requests": no_traffic,
    "Who put this version into production, when, and why": nothing,
    "The ledger is said to be damaged": edited_row,
    "A period was refused": refused_month,
}
ELSEWHERE = {
    "A version waits, and nobody knows for what": "assets_tests/faults/test_approval.py",
    "A version is in doubt: would the same data make it again?": "assets_tests/faults/test_reproduction.py",
}


def test_every_symptom_is_planted_here_or_by_a_test_of_its_own():
    assert [entry.symptom for entry in entries() if entry.symptom not in PLANTED | ELSEWHERE] == []
    assert len(entries()) == len(PLANTED | ELSEWHERE)


@pytest.mark.parametrize("symptom", PLANTED)
def test_the_commands_show_what_the_runbook_says(symptom: str, in_production: Path, tmp_path: Path, monkeypatch):
    entry = next(entry for entry in entries() if entry.symptom == symptom)
    with opened(copied(in_production, tmp_path / "home")) as loop:
        PLANTED[symptom](loop)
        monkeypatch.chdir(loop.path)
        told = [boucle(loop, *words[1:]) for words in entry.commands]
        said = " ".join(" ".join(done.stdout.split()) + " ".join(done.stderr.split()) for done in told)
        assert "Traceback" not in said
        assert entry.shown
        for words in entry.shown:
            assert words in said, said
