"""When the guard undoes a promotion: on a sure breach, one step back, and never behind a person."""

from dataclasses import astuple, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets_tests.judging import day
from assets_tests.scenarios import MODEL
from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.facts import BurnFacts, Interval, LoadFacts, OutputFacts, ServiceFacts
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.performance import PerformanceReport
from boucle.contracts.profile import CalibrationProfile
from boucle.contracts.service import BurnRule, ServiceObjectives
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.policy.burn import Seen, burn_gates, looked, seen_before
from boucle.policy.performance import LOSS
from boucle.policy.service import (
    GuardDecision,
    GuardOutcome,
    guard,
    log_loss_gate,
    output_gates,
    saturation_gate,
)
from boucle.stats.calibration import build_calibration
from boucle_adapters import replica_metrics
from boucle_adapters.memory import MemoryStateStore
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.replica_metrics import NOTHING, Counted, base_at, counts_of, read_counts, since
from boucle_serving.metrics import ServingMetrics

EXAMPLES = Path(__file__).parents[1] / "contract" / "documents"
OBJECTIVES = ServiceObjectives()
FAST, PLAIN = OBJECTIVES.fast[0], OBJECTIVES.slow[0]
HOLD, ROLL_BACK = GuardOutcome.HOLD, GuardOutcome.ROLL_BACK
PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE
GOOD, BAD = ServiceFacts(requests=1000, failed=0, slow=0), ServiceFacts(requests=1000, failed=400, slow=0)
ONE, TWO = ModelVersion(1), ModelVersion(2)


def move(kind: DecisionKind = DecisionKind.PROMOTE, actor: str = "sensor:repurchase_drift") -> NewDecision:
    return NewDecision(
        kind=kind, model=MODEL, at=day("1997-10-01"), actor=actor, reason="", from_version=ONE, to_version=TWO
    )


def gates(facts: ServiceFacts, *, short: ServiceFacts | None = None, rule: BurnRule = PLAIN) -> tuple[Gate, ...]:
    return burn_gates(OBJECTIVES, rule, BurnFacts(long=facts, short=short or facts))


def decide(
    facts: ServiceFacts,
    made_by: NewDecision | None = None,
    back_to: ModelVersion | None = ONE,
    pin: Decision | None = None,
) -> GuardDecision:
    return guard(gates(facts), move=made_by or move(), back_to=back_to, pin=pin)


def verdicts(facts: ServiceFacts) -> dict[str, Verdict]:
    return {gate.name: gate.verdict for gate in gates(facts)}


def test_a_promoted_version_that_fails_requests_is_rolled_back_with_the_numbers():
    found = decide(BAD)
    assert found.outcome is ROLL_BACK
    assert found.reason.startswith("failed_requests: failed (measured 0.4 ratio of requests [")
    assert "at most 0.01 ratio of requests, n=1000" in found.reason


def test_a_slow_one_as_well():
    found = decide(ServiceFacts(requests=1000, failed=0, slow=200))
    assert (found.outcome, found.reason.partition(":")[0]) == (ROLL_BACK, "slow_requests")


def test_within_the_objectives_it_holds():
    assert (decide(GOOD).outcome, set(verdicts(GOOD).values())) == (HOLD, {PASSED})


def test_what_may_be_chance_is_inconclusive():
    assert verdicts(ServiceFacts(requests=100, failed=3, slow=0))["failed_requests"] is INCONCLUSIVE


@pytest.mark.parametrize("requests", [0, 1, OBJECTIVES.min_requests - 1])
def test_too_few_requests_are_neither_a_pass_nor_a_breach(requests: int):
    facts = ServiceFacts(requests=requests, failed=requests, slow=requests)
    assert (set(verdicts(facts).values()), decide(facts).outcome) == ({INCONCLUSIVE}, HOLD)


# With 1000 requests the 99.9 % interval reaches about 3.8 points down from 16 %, and 4.3 from 20 %.
@pytest.mark.parametrize(
    ("rule", "long", "short", "verdict"),
    [
        (FAST, (1000, 144), (100, 100), PASSED),  # the limit itself: 14.4 times 0.01
        (FAST, (1000, 160), (100, 100), INCONCLUSIVE),  # above, not surely
        (FAST, (1000, 200), (100, 100), FAILED),
        (FAST, (1000, 200), (100, 15), FAILED),  # still above in the short window
        (FAST, (1000, 200), (100, 14), INCONCLUSIVE),  # it is over
        (FAST, (1000, 200), (0, 0), INCONCLUSIVE),  # nobody asks any more
        (FAST, (49, 49), (49, 49), INCONCLUSIVE),  # too few
        (FAST, (50, 50), (10, 10), FAILED),
        (PLAIN, (1000, 10), (100, 1), PASSED),
        (PLAIN, (1000, 40), (100, 5), FAILED),
        (PLAIN, (1000, 40), (100, 1), INCONCLUSIVE),
    ],
)
def test_a_rule_fires_when_both_windows_burn(rule: BurnRule, long: tuple, short: tuple, verdict: Verdict):
    facts = ServiceFacts(requests=long[0], failed=long[1], slow=0)
    ends_with = ServiceFacts(requests=short[0], failed=short[1], slow=0)
    assert gates(facts, short=ends_with, rule=rule)[0].verdict is verdict


def test_no_rule_waits_for_more_than_half_of_the_requests():
    objectives = ServiceObjectives(max_slow=0.1, fast=(BurnRule(factor=14.4, long_seconds=1, short_seconds=0.2),))
    facts = ServiceFacts(requests=1000, failed=0, slow=600)
    slow = burn_gates(objectives, objectives.fast[0], BurnFacts(long=facts, short=facts))[1]
    assert (slow.limit, slow.verdict) == (0.5, FAILED)


def test_the_short_window_must_be_shorter():
    with pytest.raises(ValidationError, match=r"short_seconds \(60\) must be below long_seconds \(60\)"):
        BurnRule(factor=1, long_seconds=60, short_seconds=60)


def test_looks_are_kept_as_far_back_and_as_near_each_other_as_the_rules_need():
    history: tuple[Seen[int], ...] = ()
    for tenth in range(400):
        history = looked(history, Seen(tenth / 10, tenth), (BurnRule(factor=1, long_seconds=8, short_seconds=2),))
    assert len(history) <= 8 / 0.5 + 3
    assert history[0].at <= 39.9 - 8 < history[1].at
    assert history[-1] == Seen(39.9, 399)
    assert 2 <= 39.9 - seen_before(history, 39.9 - 2).at <= 2.6
    assert seen_before(history, 0) == history[0]


def load(asked: int, refused: int, seconds: float = 60) -> LoadFacts:
    return LoadFacts(asked=asked, refused=refused, seconds=seconds)


@pytest.mark.parametrize(
    ("now", "before", "verdict"),
    [
        (load(1000, 300), load(1000, 0), FAILED),
        (load(1000, 300), load(1000, 300), PASSED),  # it was as full before
        (load(1000, 60), load(1000, 0), INCONCLUSIVE),  # not surely more than allowed
        (load(1000, 300), None, INCONCLUSIVE),
        (load(1000, 300), load(49, 0), INCONCLUSIVE),
        (load(2000, 600), load(1000, 0), INCONCLUSIVE),  # twice the callers
        (load(2000, 600, 120), load(1000, 0), FAILED),  # the same callers, for twice as long
        (load(0, 0), load(1000, 0), INCONCLUSIVE),
    ],
)
def test_a_full_replica_counts_only_where_it_filled_up_with_the_version(now, before, verdict: Verdict):
    assert saturation_gate(OBJECTIVES, now, before).verdict is verdict


def outputs(
    rows: int = 200, *, commonest: int = 2, before: int = 2, shift: float = 0.0, half: float = 0.01, spread: float = 0.1
) -> OutputFacts:
    moved = Interval(estimate=shift, low=shift - half, high=shift + half, sample_size=rows, entities=rows)
    return OutputFacts(rows=rows, commonest=commonest, commonest_before=before, shift=moved, deviation=spread)


@pytest.mark.parametrize(
    ("facts", "same", "shifted"),
    [
        (outputs(), PASSED, PASSED),
        (outputs(commonest=200), FAILED, PASSED),
        (outputs(commonest=200, before=195), INCONCLUSIVE, PASSED),  # the version before says the same to all of them
        (outputs(99, commonest=99), INCONCLUSIVE, INCONCLUSIVE),
        (outputs(shift=0.2), PASSED, PASSED),  # the limit itself: two standard deviations
        (outputs(shift=0.205), PASSED, INCONCLUSIVE),
        (outputs(shift=0.22), PASSED, FAILED),
        (outputs(shift=-0.22), PASSED, FAILED),
        (outputs(shift=0.22, spread=0.0), PASSED, INCONCLUSIVE),
        (None, INCONCLUSIVE, INCONCLUSIVE),
    ],
)
def test_answers_are_odd_where_the_version_before_answers_otherwise(facts, same: Verdict, shifted: Verdict):
    assert [gate.verdict for gate in output_gates(OBJECTIVES, facts)] == [same, shifted]


LOST = ServiceObjectives(max_log_loss_increase=0.05)


def reported(verdict: Verdict, measured: float, low: float) -> Gate:
    """What live performance says, by a tolerance of its own."""
    return Gate(
        name=LOSS,
        verdict=verdict,
        measured=measured,
        bound=Bound.AT_MOST,
        limit=0.02,
        unit="nats",
        sample_size=900,
        low=low,
        high=2 * measured - low,
    )


SURE = build_calibration(np.tile([0.0, 1.0], 500), np.tile([0.5, 0.5], 500), np.arange(1000), (0.5,))
"""A holdout on which every row lost the same: its mean is exact."""


def judged_loss(found: Gate | None, holdout: CalibrationProfile | None = SURE) -> Gate:
    report = REPORT.model_copy(update={"gates": (found,) if found else ()})
    return log_loss_gate(LOST, report, holdout, reported_level=0.95)


REPORT = PerformanceReport.model_validate_json((EXAMPLES / "PerformanceReport.json").read_text())


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (reported(FAILED, 0.08, 0.07), FAILED),
        (reported(FAILED, 0.08, 0.06), INCONCLUSIVE),  # sure at 95 %, not at 99.9 %
        (reported(FAILED, 0.08, 0.04), INCONCLUSIVE),
        (reported(FAILED, 0.04, 0.03), PASSED),
        (reported(PASSED, 0.01, -0.01), PASSED),
        (reported(INCONCLUSIVE, 0.08, 0.06), INCONCLUSIVE),  # too few labels
        (None, INCONCLUSIVE),
    ],
)
def test_log_loss_counts_where_it_surely_rose_above_that_of_the_holdout(found: Gate | None, verdict: Verdict):
    gate = judged_loss(found)
    assert (gate.name, gate.limit, gate.verdict) == ("log_loss", 0.05, verdict)
    assert log_loss_gate(LOST, None, SURE, reported_level=0.95).verdict is INCONCLUSIVE


def test_the_holdout_is_uncertain_too_and_both_are_asked_at_the_objectives_confidence():
    gate = judged_loss(reported(FAILED, 0.08, 0.06))
    assert (gate.measured, gate.low) == (0.08, pytest.approx(0.08 - 0.02 * 3.2905 / 1.9600, abs=1e-4))
    few = build_calibration(np.tile([0.0, 1.0], 20), np.tile([0.2, 0.7], 20), np.arange(40), (0.5,))
    assert judged_loss(reported(FAILED, 0.08, 0.07)).verdict is FAILED
    assert judged_loss(reported(FAILED, 0.08, 0.07), few).verdict is INCONCLUSIVE
    unknown = judged_loss(reported(FAILED, 0.08, 0.07), None)
    assert (unknown.verdict, "is not known" in unknown.detail) == (INCONCLUSIVE, True)


def test_only_what_was_reported_since_the_version_came_is_about_it(tmp_path: Path):
    files, made = MonitoringFiles(tmp_path), REPORT.created_at
    assert files.newest_about(REPORT.model, TWO, since=made) is None
    report = REPORT.model_copy(update={"production_version": TWO})
    files.write(report)
    assert files.newest_about(REPORT.model, TWO, since=made) == report
    assert files.newest_about(REPORT.model, TWO, since=made + timedelta(seconds=1)) is None
    assert files.newest_about(REPORT.model, ONE, since=made) is None


@pytest.mark.parametrize("actor", ["user:ada", "sensor:repurchase_guard"])
def test_it_goes_no_further_back_than_a_rollback_went(actor: str):
    found = decide(BAD, move(DecisionKind.ROLLBACK, actor))
    assert (found.outcome, f"it was put back by {actor}" in found.reason) == (HOLD, True)


def test_without_an_earlier_version_it_says_so():
    found = decide(BAD, back_to=None)
    assert (found.outcome, "no earlier version" in found.reason) == (HOLD, True)


def test_a_pinned_version_stays_and_it_says_who_pinned_it():
    row = move(DecisionKind.PIN, "user:ada").model_copy(update={"from_version": TWO, "reason": "the sale is on"})
    pin = Decision(decision_id=7, previous_hash=Digest("0" * 64), row_hash=Digest("1" * 64), decision=row)
    found = decide(BAD, pin=pin)
    assert (found.outcome, "is pinned by user:ada (decision 7: the sale is on)" in found.reason) == (HOLD, True)


@st.composite
def _facts(draw: st.DrawFn) -> ServiceFacts:
    requests = draw(st.integers(0, 5000))
    return ServiceFacts(requests=requests, failed=draw(st.integers(0, requests)), slow=draw(st.integers(0, requests)))


@given(_facts(), st.integers(0, 5000))
def test_more_failures_never_save_a_version(facts: ServiceFacts, more: int):
    if decide(facts).outcome is ROLL_BACK:
        failed = min(facts.requests, facts.failed + more)
        assert decide(ServiceFacts(requests=facts.requests, failed=failed, slow=facts.slow)).outcome is ROLL_BACK


@given(_facts(), st.sampled_from(list(DecisionKind)), st.sampled_from([None, ONE]))
def test_it_rolls_back_only_a_promotion_with_a_way_back_on_enough_requests(
    facts: ServiceFacts, kind: DecisionKind, back_to: ModelVersion | None
):
    if decide(facts, move(kind), back_to).outcome is ROLL_BACK:
        assert (kind, back_to, facts.requests >= OBJECTIVES.min_requests) == (DecisionKind.PROMOTE, ONE, True)


def test_a_duration_that_is_not_counted_is_refused_with_those_that_are():
    with pytest.raises(ValidationError, match=r"0.3 s is not counted; choose one of 0.0002, .*1.0"):
        ServiceObjectives(slow_seconds=0.3)


def test_counts_are_of_one_version_and_its_own_errors():
    metrics = ServingMetrics()
    for version, code, seconds in (
        ("2", 200, 0.01),
        ("2", 200, 0.3),
        ("2", 404, 0.01),
        ("2", 500, 0.7),
        ("2", 503, 0.01),
        ("2", 499, 0.01),
        ("1", 500, 0.9),
    ):
        metrics.observe("repurchase", version, "production", code, seconds)
    metrics.observe("churn", "2", "production", 500, 0.9)
    metrics.refused.labels("concurrency").inc(3)
    metrics.refused.labels("rate").inc(9)
    found = counts_of(str(metrics.text(), "utf-8"), MODEL, TWO, slow_seconds=0.25)
    assert found.facts == ServiceFacts(requests=5, failed=1, slow=2, asked=7, refused=3)
    assert metrics.counted(MODEL, TWO, slow_seconds=0.25) == ServiceFacts(requests=5, failed=1, slow=2)
    assert found.started == pytest.approx(psutil.Process().create_time(), abs=1)


def test_a_call_of_many_rows_is_one_request_that_failed_to_the_share_of_its_rows_that_did():
    metrics = ServingMetrics()
    metrics.observe_rows(MODEL, {("2", "production", 500): 1_000}, 0.01)
    for _ in range(10):
        metrics.observe_rows(MODEL, {("2", "production", 200): 90, ("2", "production", 500): 10}, 0.3)
    metrics.observe(MODEL, "2", "production", 200, 0.01)
    text = str(metrics.text(), "utf-8")
    found = counts_of(text, MODEL, TWO, slow_seconds=0.25).facts
    assert found == ServiceFacts(requests=12, failed=2, slow=10, asked=12)
    assert metrics.counted(MODEL, TWO, slow_seconds=0.25) == replace(found, asked=0)
    assert 'boucle_requests_total{code="500",model="repurchase",route="production",version="2"} 1100.0' in text


def test_calls_of_many_rows_that_are_all_slow_miss_the_objective():
    metrics = ServingMetrics()
    for _ in range(60):
        metrics.observe_rows(MODEL, {("2", "production", 200): 100}, 2.0)
    assert verdicts(metrics.counted(MODEL, TWO, slow_seconds=1.0))["slow_requests"] is FAILED


@pytest.mark.parametrize("text", ["<html>Welcome</html>", "", "up 1\n"])
def test_an_address_that_answers_something_else_is_a_replica_that_cannot_be_read(
    text: str, monkeypatch: pytest.MonkeyPatch
):
    state, texts = MemoryStateStore(), {"http://one": text, "http://two": str(ServingMetrics().text(), "utf-8")}
    for name in ("one", "two"):
        state.heartbeat(name, {MODEL: 1}, f"http://{name}")
    monkeypatch.setattr(replica_metrics, "_metrics_of", texts.get)
    assert set(read_counts(state, MODEL, TWO, slow_seconds=1.0, replica_timeout_seconds=3)) == {"two"}


def counted(requests: int, failed: int = 0, slow: int = 0, *, started: float = 1.0) -> Counted:
    return Counted(started=started, facts=ServiceFacts(requests=requests, failed=failed, slow=slow))


def test_a_window_counts_from_where_it_began_and_a_new_process_from_its_start():
    before = {"one": counted(100, 5, 1), "two": counted(100, 9, 0)}
    now = {"one": counted(150, 6, 1), "two": counted(110, 2, 0, started=2.0)}
    assert since(now, before) == ServiceFacts(requests=160, failed=3, slow=0)


def test_a_replica_that_was_not_counted_when_the_window_began_says_nothing_about_it():
    assert since({"new": counted(1000, 400)}, {}) == since({}, {"gone": counted(100, 5)}) == NOTHING


def test_a_replica_that_is_first_read_later_is_counted_from_then():
    history = (
        Seen(0.0, {"one": counted(10)}),
        Seen(10.0, {"one": counted(20), "two": counted(7)}),
        Seen(20.0, {"one": counted(30), "two": counted(9)}),
        Seen(30.0, {"two": counted(12)}),
    )
    assert base_at(history, 5.0) == {"one": counted(10), "two": counted(7)}
    assert base_at(history, 20.0) == {"one": counted(30), "two": counted(9)}


counts = st.integers(0, 50).flatmap(
    lambda requests: st.builds(counted, st.just(requests), st.integers(0, requests), st.integers(0, requests))
)


@given(before=st.dictionaries(st.sampled_from("abc"), counts), more=st.dictionaries(st.sampled_from("abc"), counts))
def test_no_count_of_a_window_is_negative_or_more_than_its_requests(
    before: dict[str, Counted], more: dict[str, Counted]
):
    """Restarted or not, counters only rise within a process."""

    def later(name: str, rise: Counted) -> Counted:
        base = before.get(name)
        if base is None or rise.facts.requests % 2:  # another process
            return replace(rise, started=2.0)
        rises = zip(astuple(base.facts), astuple(rise.facts), strict=True)
        return counted(*(was + risen for was, risen in list(rises)[:3]))

    found = since({name: later(name, rise) for name, rise in more.items()}, before)
    assert 0 <= found.failed <= found.requests
    assert 0 <= found.slow <= found.requests
