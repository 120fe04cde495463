"""A replay is complete only when everything it promises happened; each omission alone is enough to fail it."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from boucle.errors import ConfigurationError
from boucle_cli.demo.run import set_aside
from boucle_cli.demo.summary import Month, Move, Quarantined, Summary

MOVE = Move(period="1997-04", version=1, reason="better", seconds_until_served=0.1)


def month(predictions: int, *, loop: float, static: float, mean_loop: float, mean_static: float) -> Month:
    return Month(
        period="1997-05",
        version=1,
        predictions=predictions,
        positive_rate=0.10,
        mean_loop=mean_loop,
        mean_static=mean_static,
        logloss_loop=loop,
        logloss_static=static,
    )


def everything() -> Summary:
    return Summary(
        predictions_served=500,
        periods=18,
        published_periods=18,
        promotions=[MOVE, replace(MOVE, version=2, after_drift=True)],
        refusals=[replace(MOVE, version=3, seconds_until_served=None)],
        rollbacks=[MOVE],
        worse_candidate_refused=True,
        quarantine=Quarantined(rows=12, reasons={"cds: not a whole number": 12}, refused_whole="column missing"),
        months=[month(100, loop=0.2, static=0.3, mean_loop=0.11, mean_static=0.14)],
    )


def test_a_replay_in_which_all_of_it_happened_is_complete():
    assert everything().missing() == []
    assert everything().complete


@pytest.mark.parametrize(
    ("spoil", "missing"),
    [
        (lambda s: s.promotions.pop(0), "at least two promotions"),
        (lambda s: s.promotions.__setitem__(1, replace(MOVE, version=2)), "a promotion that drift asked for"),
        (
            lambda s: s.promotions.append(replace(MOVE, seconds_until_served=None)),
            "every promoted version answered over HTTP",
        ),
        (lambda s: setattr(s, "requests_failed", 1), "no failed request"),
        (lambda s: setattr(s, "predictions_served", 0), "no failed request"),
        (
            lambda s: setattr(s, "worse_candidate_refused", False),
            "the candidate made worse on purpose was refused",
        ),
        (lambda s: setattr(s, "quarantine", None), "broken rows in quarantine"),
        (lambda s: setattr(s, "quarantine", replace(s.quarantine, rows=0)), "broken rows in quarantine"),
        (lambda s: setattr(s, "quarantine", replace(s.quarantine, refused_whole="")), "a file without a column"),
        (lambda s: s.rollbacks.clear(), "the previous version answered after the rollback"),
        (
            lambda s: s.rollbacks.__setitem__(0, replace(MOVE, seconds_until_served=None)),
            "the previous version answered after the rollback",
        ),
        (lambda s: s.months.clear(), "outcomes of served predictions"),
        (lambda s: s.months.clear(), "log loss of the loop below"),
        (lambda s: s.months.__setitem__(0, replace(s.months[0], logloss_loop=0.3)), "log loss of the loop below"),
        (lambda s: s.months.__setitem__(0, replace(s.months[0], mean_loop=0.14)), "calibration error of the loop"),
    ],
    ids=[
        "one promotion", "no drift", "never answered", "a failed request", "nothing served", "worse one passed",
        "no quarantine", "empty quarantine", "broken file loaded", "no rollback", "rollback unseen", "no outcome",
        "no log loss", "log loss no better", "calibration no better",
    ],
)  # fmt: skip
def test_each_omission_makes_it_incomplete(spoil: Callable[[Summary], object], missing: str):
    summary = everything()
    spoil(summary)
    assert any(name.startswith(missing) for name in summary.missing())
    assert not summary.complete


def test_a_part_of_the_history_is_not_asked_for_figures_and_says_so():
    part = everything()
    part.periods = 7
    part.months = [month(100, loop=0.3, static=0.2, mean_loop=0.14, mean_static=0.11)]
    assert part.missing() == []
    assert part.not_asked() == [
        "log loss of the loop below that of the first model",
        "calibration error of the loop below that of the first model",
    ]
    assert part.as_json()["not_asked"] == part.not_asked()


def test_the_whole_history_is_asked_for_everything():
    assert everything().not_asked() == []


def test_a_replay_of_nothing_is_not_the_whole_history():
    assert not Summary().whole_history
    assert not Summary().complete


def test_log_loss_weighs_months_by_predictions_and_calibration_weighs_them_equally():
    summary = Summary(
        months=[
            month(300, loop=0.2, static=0.3, mean_loop=0.11, mean_static=0.14),
            month(100, loop=0.4, static=0.5, mean_loop=0.08, mean_static=0.10),
        ]
    )
    assert summary.logloss_loop == pytest.approx((300 * 0.2 + 100 * 0.4) / 400)
    assert summary.logloss_static == pytest.approx((300 * 0.3 + 100 * 0.5) / 400)
    assert summary.calibration_error_loop == pytest.approx((0.01 + 0.02) / 2)
    assert summary.calibration_error_static == pytest.approx((0.04 + 0.0) / 2)


def test_without_an_outcome_there_is_no_figure_rather_than_zero():
    empty = Summary()
    assert (empty.logloss_loop, empty.calibration_error_loop) == (None, None)


def test_a_summary_is_one_json_object():
    assert json.loads(json.dumps(everything().as_json()))["missing"] == []


def test_an_earlier_home_is_kept_beside_the_new_one(tmp_path: Path):
    home = tmp_path / ".boucle"
    for number in (1, 2):
        home.mkdir()
        (home / "state.db").write_text(f"replay {number}")
        assert set_aside(home) == tmp_path / f".boucle-{number}"
        assert not home.exists()
    assert (tmp_path / ".boucle-1" / "state.db").read_text() == "replay 1"
    assert (tmp_path / ".boucle-2" / "state.db").read_text() == "replay 2"


def test_a_home_from_which_an_api_answers_is_not_moved_away(tmp_path: Path):
    (tmp_path / "state.db").write_text("in use")
    (tmp_path / "serving-replica-1.json").write_text(json.dumps({"address": "http://127.0.0.1:1", "pid": os.getpid()}))
    with pytest.raises(ConfigurationError, match="end `boucle dev` first"):
        set_aside(tmp_path)
    assert (tmp_path / "state.db").read_text() == "in use"


def test_a_home_in_which_only_definitions_were_checked_has_no_state_to_keep(tmp_path: Path):
    (tmp_path / "dbt").mkdir()
    assert set_aside(tmp_path) is None


def test_an_empty_or_missing_home_is_used_as_it_is(tmp_path: Path):
    assert set_aside(tmp_path / ".boucle") is None
    (tmp_path / ".boucle").mkdir()
    assert set_aside(tmp_path / ".boucle") is None
    assert (tmp_path / ".boucle").exists()
