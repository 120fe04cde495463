"""Is a challenger fit for more traffic: each metric with its interval, and what they say together."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.rollout import ArmCounts, Scores, StepCounts
from boucle.contracts.verdict import Gate, GateMode, Verdict
from boucle.policy.canary import (
    CanaryPolicy,
    CanaryStep,
    Metric,
    Say,
    canary_gates,
    canary_verdict,
    requests_needed,
)

POLICY = CanaryPolicy()
PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE
MANY = 200_000


def arm(n: int = MANY, *, failed: float = 0.005, slow: float = 0.01, mean: float = 0.3) -> ArmCounts:
    scores = Scores(n=n, mean=mean, variance=0.04)
    return ArmCounts(requests=n, failed=round(n * failed), slow=round(n * slow), scores=scores)


def step(challenger: ArmCounts, *, n: int = MANY, loss: float = 0.0) -> StepCounts:
    """Against ordinary production; `loss` is the challenger's excess over production's loss, ratio."""
    pairs = Scores(n=challenger.requests, mean=0.25 * loss, variance=0.0056)
    return StepCounts(challenger=challenger, production=arm(n), loss=pairs, production_loss=0.25)


def verdicts(*steps: StepCounts, policy: CanaryPolicy = POLICY) -> dict[str, Verdict]:
    return {gate.name: gate.verdict for gate in canary_gates(policy, steps)}


def test_an_equal_challenger_passes_every_metric():
    assert set(verdicts(step(arm())).values()) == {PASSED}


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (step(arm(failed=0.025)), "failed"),
        (step(arm(slow=0.03)), "slow"),
        (step(arm(mean=0.3 + 0.2 * 0.2)), "score_shift"),
        (step(arm(mean=0.3 - 0.2 * 0.2)), "score_shift"),
        (step(arm(), loss=0.05), "loss"),
    ],
)
def test_each_effect_is_caught_by_its_metric_and_by_no_other(bad: StepCounts, name: str):
    found = verdicts(bad)
    assert found.pop(name) is FAILED
    assert set(found.values()) == {PASSED}


def test_a_better_challenger_passes():
    assert set(verdicts(step(arm(failed=0.0, slow=0.0), loss=-0.2)).values()) == {PASSED}


@pytest.mark.parametrize("steps", [(), (StepCounts(),), (step(arm(50)),), (step(arm(), n=50),)])
def test_without_enough_on_both_sides_nothing_is_known(steps: tuple[StepCounts, ...]):
    gates = {gate.name: gate for gate in canary_gates(POLICY, steps)}
    assert gates["failed"].verdict is gates["slow"].verdict is gates["score_shift"].verdict is INCONCLUSIVE
    assert gates["failed"].measured is None
    assert "nothing is known yet" in gates["failed"].detail


def test_without_outcomes_the_loss_is_not_known_and_so_the_whole_is_not():
    blind = StepCounts(challenger=arm(), production=arm())
    gates = canary_gates(POLICY, (blind,))
    assert {gate.name: gate.verdict for gate in gates}["loss"] is INCONCLUSIVE
    assert canary_verdict(POLICY, gates) is INCONCLUSIVE
    assert canary_verdict(POLICY, gates, required_pass=False) is PASSED


def test_a_gate_says_its_number_interval_limit_unit_and_sample_size():
    (gate, *_) = canary_gates(POLICY, (step(arm(failed=0.025)),))
    assert gate.measured == pytest.approx(0.02, abs=1e-3)
    assert gate.low is not None
    assert gate.high is not None
    assert POLICY.failed.margin < gate.low < gate.measured < gate.high
    assert (gate.limit, gate.unit, gate.sample_size) == (0.01, "ratio of requests", MANY)


def test_each_step_is_judged_against_production_of_its_own_time():
    """Failures of both double in the second step, in which the challenger has most of its requests."""
    calm = StepCounts(challenger=arm(2_000, failed=0.01), production=arm(198_000, failed=0.01))
    storm = StepCounts(challenger=arm(50_000, failed=0.05), production=arm(150_000, failed=0.05))
    assert verdicts(calm, storm)["failed"] is PASSED
    mixed = StepCounts(
        challenger=arm(52_000, failed=(20 + 2_500) / 52_000), production=arm(348_000, failed=(1_980 + 7_500) / 348_000)
    )
    assert verdicts(mixed)["failed"] is FAILED  # what it looks like without the times


SHADOWED = step(arm(5 * MANY, failed=0.0, slow=0.0)).model_copy(update={"in_shadow": True})


def test_many_shadows_without_a_failure_do_not_hide_what_fails_or_is_slow_in_traffic():
    found = verdicts(SHADOWED, step(arm(10_000, failed=0.03, slow=0.05)))
    assert (found["failed"], found["slow"]) == (FAILED, FAILED)


def test_failures_in_shadow_are_judged_there_and_no_more_once_somebody_is_answered():
    failing = SHADOWED.model_copy(update={"challenger": arm(failed=0.03)})
    assert verdicts(failing)["failed"] is FAILED
    assert verdicts(failing, step(arm()))["failed"] is PASSED
    assert verdicts(failing, StepCounts())["failed"] is INCONCLUSIVE


def test_in_shadow_nobody_asks_how_slow_a_challenger_is():
    gates = canary_gates(POLICY, (SHADOWED,))
    slow = next(gate for gate in gates if gate.name == "slow")
    assert (slow.verdict, slow.mode, slow.measured) == (INCONCLUSIVE, GateMode.OFF, None)
    assert canary_verdict(POLICY, gates) is PASSED
    with_traffic = canary_gates(POLICY, (SHADOWED, StepCounts()))
    assert canary_verdict(POLICY, with_traffic) is INCONCLUSIVE


def test_a_challenger_at_the_margin_passes_and_fails_no_more_often_than_declared_however_often_one_looks():
    rng, times, looks, n = np.random.default_rng(11), 150, 40, 1_000
    passed = failed = 0
    for _ in range(times):
        worse = rng.binomial(n, 0.02, looks).cumsum()
        usual = rng.binomial(19 * n, 0.01, looks).cumsum()
        said = set()
        for look in range(looks):
            answered = n * (look + 1)
            counts = StepCounts(
                challenger=ArmCounts(requests=answered, failed=int(worse[look])),
                production=ArmCounts(requests=19 * answered, failed=int(usual[look])),
            )
            said.add(canary_gates(POLICY, (counts,))[0].verdict)
        passed += PASSED in said
        failed += FAILED in said
    most = POLICY.alpha_each + 3 * math.sqrt(POLICY.alpha_each / times)
    assert passed / times <= most
    assert failed / times <= most


def gate(name: str, verdict: Verdict) -> Gate:
    return canary_gates(POLICY, ())[0].model_copy(update={"name": name, "verdict": verdict})


@given(st.dictionaries(st.sampled_from(sorted(POLICY.metrics)), st.sampled_from(Verdict)))
def test_one_failed_fails_and_all_required_must_have_passed(said: dict[str, Verdict]):
    gates = [gate(name, verdict) for name, verdict in said.items()]
    found = canary_verdict(POLICY, gates)
    if FAILED in said.values():
        assert found is FAILED
    else:
        assert (found is PASSED) == (set(said) == set(POLICY.metrics) and set(said.values()) == {PASSED})
    assert canary_verdict(POLICY, gates, required_pass=False) is (FAILED if FAILED in said.values() else PASSED)


def test_a_veto_can_stop_and_is_not_waited_for():
    veto = POLICY.loss.model_copy(update={"say": Say.VETO})
    policy = POLICY.model_copy(update={"loss": veto})
    rest = [gate(name, PASSED) for name in POLICY.metrics if name != "loss"]
    assert canary_verdict(policy, [*rest, gate("loss", INCONCLUSIVE)]) is PASSED
    assert canary_verdict(POLICY, [*rest, gate("loss", INCONCLUSIVE)]) is INCONCLUSIVE
    assert canary_verdict(policy, [*rest, gate("loss", FAILED)]) is FAILED


def test_the_requests_that_are_asked_for_grow_with_the_share_and_shrink_with_the_effect():
    base = {"failed": 0.005, "slow": 0.01, "loss_deviation": 0.3}
    at_5, at_25 = (requests_needed(POLICY, weight=weight, **base) for weight in (5, 25))
    assert all(at_5[name] <= at_25[name] for name in at_5)
    loose = POLICY.model_copy(update={"failed": Metric(margin=0.02, effect=0.04, unit="ratio of requests")})
    assert requests_needed(loose, weight=5, **base)["failed"] < at_5["failed"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"failed": {"margin": 0.02, "effect": 0.02, "unit": ""}}, "must be below the effect"),
        ({"steps": ()}, "must rise"),
        ({"steps": ({"weight": 5}, {"weight": 5})}, "must rise"),
        ({"steps": ({"weight": 100},)}, "less than 100"),
        ({"alpha": 0}, "greater than 0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, object], says: str):
    with pytest.raises(ValidationError, match=says):
        CanaryPolicy.model_validate(values)


def test_steps_may_be_declared():
    policy = CanaryPolicy.model_validate({"steps": [{"weight": 10, "min_requests": 5}], "shadow": None})
    assert policy.steps == (CanaryStep(weight=10, min_requests=5),)
