"""What drift gates say where callers ask about the same entities again, and where one asks all the time."""

import numpy as np
import pytest

from assets_tests.judging import live
from boucle.contracts.facts import LiveFacts
from boucle.contracts.verdict import Verdict
from boucle.features.profiles import profile_like, profile_reference
from boucle.policy.columns import column_drifts
from boucle.policy.monitoring import MonitoringPolicy, drift_gates

POLICY = MonitoringPolicy()
EVENLY = profile_reference(np.linspace(0, 4, 20_000, endpoint=False), 10)


def asked_about(entities: np.ndarray, *, scores: np.ndarray, **features: np.ndarray) -> LiveFacts:
    """A window of rows about these entities against a reference of 20,000 values from 0 to 4 of everything."""
    reference = live().reference.model_copy(
        update={
            "features": dict.fromkeys(("recency", "freq"), EVENLY.histogram),
            "details": dict.fromkeys(("recency", "freq"), EVENLY.details),
            "scores": EVENLY.histogram,
            "score_details": EVENLY.details,
        }
    )
    return LiveFacts(
        reference=reference,
        predictions=len(entities),
        scores=profile_like(scores, EVENLY, entities=entities),
        features={name: profile_like(values, EVENLY, entities=entities) for name, values in features.items()},
        outcomes=None,
    )


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, Verdict.PASSED), (1.0, Verdict.FAILED)])
def test_a_probe_that_asks_all_the_time_hides_no_drift_and_is_none(moved: float, verdict: Verdict):
    """10,000 ask once, one asks 3,000 times: with a five-hundredth of what counts it has 20 rows."""
    rng = np.random.default_rng(2)
    values = [np.concatenate([rng.uniform(moved, 4, 10_000), np.full(3_000, 2.2)]) for _ in range(3)]
    entities = np.concatenate([np.arange(10_000), np.full(3_000, 10_000)])
    facts = asked_about(entities, scores=values[0], recency=values[1], freq=values[2])
    found = {gate.name: gate for gate in drift_gates(POLICY, facts)}
    for name in ("score_drift", "feature_drift"):
        assert (name, found[name].verdict) == (name, verdict)
        assert "2980 of 13000 rows are left out: they are beyond the share of one entity." in found[name].detail
    assert [found[name].verdict for name in ("input_frozen", "input_missing")] == [Verdict.PASSED] * 2
    assert {one.verdict for one in column_drifts(POLICY, facts)} == {verdict}


OF_FEATURES = ("feature_drift", "input_frozen", "input_missing")


def test_a_feature_of_few_entities_is_never_passed_however_often_they_ask():
    """30 entities ask 40 times each: the scores differ from row to row, the feature does not."""
    entities = np.repeat(np.arange(30), 40)
    scores, evenly = np.linspace(0, 4, 1_200, endpoint=False), np.linspace(0, 4, 30, endpoint=False)
    facts = asked_about(entities, scores=np.random.default_rng(3).permutation(scores), recency=evenly[entities])
    found = {gate.name: gate for gate in drift_gates(POLICY, facts)}
    assert found["score_drift"].verdict is Verdict.PASSED
    for name in OF_FEATURES:
        assert (name, found[name].verdict) == (name, Verdict.INCONCLUSIVE)
        assert (
            found[name].detail == "recency: 1200 predictions, worth 30 of different entities; the policy asks for 200."
        )
    assert [one.verdict for one in column_drifts(POLICY, facts)] == [Verdict.PASSED, Verdict.INCONCLUSIVE]


def test_a_feature_that_is_worth_little_hides_no_drift_of_one_that_is_worth_enough():
    entities, rng = np.repeat(np.arange(30), 40), np.random.default_rng(3)
    evenly = np.linspace(0, 4, 30, endpoint=False)
    facts = asked_about(
        entities, scores=rng.uniform(0, 4, 1_200), recency=evenly[entities], freq=rng.uniform(2, 4, 1_200)
    )
    assert [one.verdict for one in column_drifts(POLICY, facts)] == ["passed", "inconclusive", "failed"]
    (gate,) = [gate for gate in drift_gates(POLICY, facts) if gate.name == "feature_drift"]
    assert gate.verdict is Verdict.FAILED
    assert "1 of 2 features surely drifted" in gate.detail
