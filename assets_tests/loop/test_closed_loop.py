"""`boucle demo` as a person types it, and every verb on the home that it leaves."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from assets_tests import warm

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
BOUCLE = str(Path(sys.executable).with_name("boucle"))
# Fewer requests a month leave drift inconclusive, and then nothing asks for a second version by July.
UNTIL, REQUESTS = "1997-07", "2000"


@dataclass(frozen=True)
class Demo:
    home: Path
    done: "subprocess.CompletedProcess[str]"

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.done.stdout)
        return found


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOUCLE_", "DAGSTER_"))}
    return {**kept, "BOUCLE_HOME": str(home), "COLUMNS": warm.WIDTH}


def boucle(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return warm.boucle(*words, environment=environment(home), timeout=240)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    home = tmp_path_factory.mktemp("demo") / "home"
    words = [BOUCLE, "demo", "--until", UNTIL, "--requests", REQUESTS, "--json"]
    done = subprocess.run(words, env=environment(home), capture_output=True, text=True, timeout=780, check=False)
    return Demo(home, done)


def test_it_ends_well_and_says_nothing_but_one_json_object(demo: Demo):
    assert demo.done.returncode == 0, demo.done.stdout[-2000:] + demo.done.stderr[-2000:]
    assert isinstance(demo.summary, dict)
    assert demo.summary["missing"] == []


def test_the_object_has_the_promised_keys(demo: Demo):
    promised = {
        "seconds", "months", "predictions_served", "requests_failed", "promotions", "refusals", "rollbacks",
        "logloss_loop", "logloss_static", "calibration_error_loop", "calibration_error_static", "report",
    }  # fmt: skip
    assert promised <= set(demo.summary)
    for moves in ("promotions", "refusals", "rollbacks"):
        assert all({"version", "reason", "seconds_until_served"} <= set(move) for move in demo.summary[moves])


def test_no_request_failed_while_versions_changed(demo: Demo):
    assert demo.summary["requests_failed"] == 0
    assert demo.summary["failures"] == {}
    assert demo.summary["predictions_served"] >= 3 * int(REQUESTS)


def test_every_promoted_version_answered(demo: Demo):
    promotions = demo.summary["promotions"]
    assert len(promotions) >= 2
    assert [move["version"] for move in promotions] == sorted(move["version"] for move in promotions)
    assert all(0 <= move["seconds_until_served"] < 20 for move in promotions)


def test_the_candidate_made_worse_on_purpose_was_refused_with_its_numbers(demo: Demo):
    refusal = demo.summary["refusals"][-1]
    assert demo.summary["worse_candidate_refused"]
    assert refusal["version"] not in {move["version"] for move in demo.summary["promotions"]}
    assert "quality_floor: failed (measured" in refusal["reason"]


def test_broken_rows_are_in_quarantine_and_the_broken_file_was_refused(demo: Demo):
    quarantine = demo.summary["quarantine"]
    assert quarantine["rows"] >= 12
    assert {"amount_usd: not at least 0", "cds: not a whole number"} <= set(quarantine["reasons"])
    assert "is missing" in quarantine["refused_whole"]


def test_the_rollback_was_seen_in_the_answers(demo: Demo):
    (back,) = demo.summary["rollbacks"]
    assert back["version"] == demo.summary["promotions"][-2]["version"]
    assert back["seconds_until_served"] is not None


def test_the_figures_are_of_served_months(demo: Demo):
    summary = demo.summary
    assert len(summary["months"]) >= 1
    assert 0 < summary["logloss_loop"] < 0.7
    assert 0 <= summary["calibration_error_loop"] < 0.1
    assert max(summary["peak_memory_mib"].values()) < 2048


def test_the_timeline_is_a_page(demo: Demo):
    page = Path(demo.summary["report"]).read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "1997-05" in page


READING = ("status", "history", "quarantine count", "doctor")


@pytest.mark.parametrize("verb", READING)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "json"])
def test_a_reading_verb_works_on_the_home(demo: Demo, verb: str, form: tuple[str, ...]):
    done = boucle(demo.home, *verb.split(), *form)
    assert done.returncode == 0, done.stdout + done.stderr
    if form:
        assert json.loads(done.stdout)
    else:
        assert done.stdout.strip()


def test_history_tells_the_same_story_as_the_summary(demo: Demo):
    rows = json.loads(boucle(demo.home, "history", "--json").stdout)
    promoted = [row["version"] for row in rows if row["kind"] == "promote"]
    assert promoted == [move["version"] for move in demo.summary["promotions"]]
    assert [row["#"] for row in rows] == list(range(1, len(rows) + 1))


def test_status_names_the_version_after_the_rollback(demo: Demo):
    status = json.loads(boucle(demo.home, "status", "--json").stdout)
    assert status["production"] == demo.summary["rollbacks"][0]["version"]
    assert status["aliases"] == "as the ledger says"


@pytest.mark.parametrize("verb", READING)
def test_an_unknown_model_is_an_error_for_people(demo: Demo, verb: str):
    done = boucle(demo.home, *verb.split(), "churn")
    assert done.returncode == 1
    assert "There is no model 'churn'; defs/ declares: flight_delay, repurchase" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["rollback", "retrain"])
def test_a_move_without_a_reason_is_a_usage_error(demo: Demo, verb: str):
    done = boucle(demo.home, verb)
    assert done.returncode == 2
    assert "--reason" in done.stderr


def test_feed_lands_the_next_month_then_refuses_to_skip_one(demo: Demo):
    told = boucle(demo.home, "feed")
    assert told.returncode == 0
    assert "1997-08" in told.stdout
    assert json.loads(boucle(demo.home, "feed", "--json").stdout)["period"] == "1997-09"
    skipped = boucle(demo.home, "feed", "--period", "1997-12")
    assert (skipped.returncode, "Traceback" in skipped.stderr) == (1, False)
    assert "1997-12 cannot land before 1997-10" in skipped.stderr


def test_retraining_by_hand_runs_the_gates(demo: Demo):
    done = boucle(demo.home, "retrain", "--reason", "by hand", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode == 0) is answer["succeeded"]
    assert answer["succeeded"] or answer["error"]
    assert answer["production"] == json.loads(boucle(demo.home, "status", "--json").stdout)["production"]


def test_rolling_back_until_nothing_is_left_is_refused_without_a_change(demo: Demo):
    rows = json.loads(boucle(demo.home, "history", "--json").stdout)
    if [row["kind"] for row in rows if row["kind"] in {"promote", "rollback"}][-1] == "promote":
        assert boucle(demo.home, "rollback", "--reason", "what was trained by hand").returncode == 0
    again = boucle(demo.home, "rollback", "--reason", "once more")
    assert (again.returncode, "was rolled back already" in " ".join(again.stderr.split())) == (1, True), again.stderr
    for _ in range(10):
        before = json.loads(boucle(demo.home, "status", "--json").stdout)
        bad = str(before["production"])
        done = boucle(demo.home, "rollback", "--from", bad, "--reason", "one further", "--json")
        if done.returncode:
            break
        assert json.loads(done.stdout)["to"] == before["previous"]
    assert before["previous"] is None
    assert "Nothing was changed" in done.stderr
    assert json.loads(boucle(demo.home, "status", "--json").stdout)["production"] == before["production"]
