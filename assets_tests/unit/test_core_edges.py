"""Edges of the core that no other test comes to: what an empty set, a third verdict, an unfit document says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from assets_tests.judging import gate
from boucle.contracts.performance import Metric, PerformanceReport
from boucle.contracts.shadow import ShadowRecord
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.contracts.trials import Outcome
from boucle.contracts.verdict import Verdict, worst
from boucle.policy.canary import CanaryPolicy, ShadowStep
from boucle.policy.promotion import refusal_of
from boucle.policy.trials import shadow_outcome
from boucle.stats.performance import realised_metrics
from boucle.stats.performance_history import all_errors, estimate_accuracy, in_front, realised_by_version, whole_rows

DOCUMENTS = Path(__file__).resolve().parents[1] / "contract" / "documents"
SHADOW = ShadowStep(min_requests=1_000, min_minutes=60)
POLICY = CanaryPolicy(shadow=SHADOW)
GOOD = tuple(gate(name, Verdict.PASSED) for name in POLICY.metrics)
BAD = (*GOOD[1:], gate(next(iter(POLICY.metrics)), Verdict.FAILED))
UNSURE = (*GOOD[1:], gate(next(iter(POLICY.metrics)), Verdict.INCONCLUSIVE))


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCUMENTS / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize(
    ("gates", "requests", "minutes", "outcome"),
    [
        (GOOD, 1_000, 60, Outcome.WON),
        (GOOD, 999, 60, Outcome.CONTINUE),
        (GOOD, 1_000, 59, Outcome.CONTINUE),
        (BAD, 1, 1, Outcome.LOST),
        (UNSURE, 1_000, 60, Outcome.CONTINUE),
        (UNSURE, 1_000, POLICY.give_up_hours * 60, Outcome.NO_DIFFERENCE),
    ],
    ids=["at its least", "too few requests", "too early", "failed at once", "not sure yet", "never sure"],
)
def test_a_shadow_wins_when_it_was_long_enough_and_loses_at_once(gates, requests: int, minutes: float, outcome):
    assert shadow_outcome(POLICY, gates, requests=requests, minutes=minutes).outcome is outcome


def test_the_gate_that_decides_is_the_last_of_the_worst_kind():
    first, second = gate("a", Verdict.FAILED), gate("b", Verdict.FAILED)
    assert worst([first, gate("c", Verdict.INCONCLUSIVE), second, gate("d", Verdict.PASSED)]) is second
    with pytest.raises(ValueError, match="no gate to choose from"):
        worst([])


def test_a_candidate_that_nobody_judged_is_refused_with_that_reason():
    assert refusal_of([gate("a", Verdict.PASSED)]) == ""
    assert "no gate was measured" in refusal_of([]).lower()
    assert "a: failed" in refusal_of([gate("a", Verdict.FAILED), gate("b", Verdict.PASSED)])


def test_a_plan_answers_everyone_and_has_one_production():
    plan = document("TrafficPlan")
    lost = plan | {"arms": [arm | {"weight": arm["weight"] / 2} for arm in plan["arms"]]}
    with pytest.raises(ValidationError, match="must sum to 100 per cent"):
        TrafficPlan.model_validate_json(json.dumps(lost))
    nobody = plan | {"arms": [arm | {"role": "challenger"} for arm in plan["arms"]]}
    with pytest.raises(ValidationError, match="exactly one arm with role production"):
        TrafficPlan.model_validate_json(json.dumps(nobody))


@pytest.mark.parametrize("said", [{"proba": None, "error": None}, {"proba": 0.5, "error": "failed"}])
def test_a_shadow_answers_or_says_why_not(said: dict[str, object]):
    with pytest.raises(ValidationError, match="either an answer or an error"):
        ShadowRecord.model_validate_json(json.dumps(document("ShadowRecord") | said))


def test_realised_metrics_are_none_where_the_rows_do_not_allow_one():
    labels, scores = np.array([0.0, 0.0, 0.0, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])
    found = realised_metrics(labels, scores, ["a", "b", "c", "d"], level=0.95)
    assert found[Metric.AUC] is None
    assert found[Metric.CALIBRATION] is not None
    assert found[Metric.CALIBRATION].estimate == pytest.approx(0.25)
    assert found[Metric.BRIER] is not None
    assert found[Metric.BRIER].estimate == pytest.approx((0.01 + 0.04 + 0.09 + 0.16) / 4)


def test_the_history_of_a_report_holds_whole_versions_and_recorded_errors():
    report = PerformanceReport.model_validate_json(json.dumps(document("PerformanceReport")))
    whole = whole_rows(report)
    assert all(row.role is None and row.slice is None for row in whole)
    assert in_front(report, ()) is None
    lines = realised_by_version([report], Metric.LOG_LOSS)
    assert set(lines) == {row.version for row in whole if row.metrics[Metric.LOG_LOSS] is not None}
    errors = all_errors([report, report])
    assert len(errors) == 2 * len(report.estimate_errors)
    for accuracy in estimate_accuracy(errors):
        same = [error.error for error in errors if error.metric is accuracy.metric]
        assert accuracy.estimates == len(same)
        assert accuracy.bias == pytest.approx(sum(same) / len(same))
