"""When the guard undoes a promotion: on a sure breach, one step back, and never behind a person."""

from dataclasses import astuple, replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets_tests.judging import day
from assets_tests.scenarios import MODEL
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.verdict import Verdict
from boucle.policy.service import GuardDecision, GuardOutcome, ServicePolicy, guard, service_gates
from boucle_adapters.replica_metrics import NOTHING, Counted, counts_of, since
from boucle_serving.metrics import ServingMetrics

POLICY = ServicePolicy()
HOLD, ROLL_BACK = GuardOutcome.HOLD, GuardOutcome.ROLL_BACK
GOOD, BAD = ServiceFacts(requests=1000, failed=0, slow=0), ServiceFacts(requests=1000, failed=400, slow=0)
ONE, TWO = ModelVersion(1), ModelVersion(2)


def move(kind: DecisionKind = DecisionKind.PROMOTE, actor: str = "sensor:repurchase_drift") -> NewDecision:
    return NewDecision(
        kind=kind, model=MODEL, at=day("1997-10-01"), actor=actor, reason="", from_version=ONE, to_version=TWO
    )


def decide(
    facts: ServiceFacts, made_by: NewDecision | None = None, back_to: ModelVersion | None = ONE
) -> GuardDecision:
    return guard(service_gates(POLICY, facts), move=made_by or move(), back_to=back_to)


def verdicts(facts: ServiceFacts) -> dict[str, Verdict]:
    return {gate.name: gate.verdict for gate in service_gates(POLICY, facts)}


def test_a_promoted_version_that_fails_requests_is_rolled_back_with_the_numbers():
    found = decide(BAD)
    assert found.outcome is ROLL_BACK
    assert found.reason.startswith("failed_requests: failed (measured 0.4 ratio of requests [")
    assert "at most 0.01 ratio of requests, n=1000" in found.reason


def test_a_slow_one_as_well():
    found = decide(ServiceFacts(requests=1000, failed=0, slow=200))
    assert (found.outcome, found.reason.partition(":")[0]) == (ROLL_BACK, "slow_requests")


def test_within_the_objectives_it_holds():
    assert (decide(GOOD).outcome, set(verdicts(GOOD).values())) == (HOLD, {Verdict.PASSED})


def test_what_may_be_chance_is_inconclusive():
    assert verdicts(ServiceFacts(requests=100, failed=3, slow=0))["failed_requests"] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("requests", [0, 1, POLICY.min_requests - 1])
def test_too_few_requests_are_neither_a_pass_nor_a_breach(requests: int):
    facts = ServiceFacts(requests=requests, failed=requests, slow=requests)
    assert (set(verdicts(facts).values()), decide(facts).outcome) == ({Verdict.INCONCLUSIVE}, HOLD)


@pytest.mark.parametrize("actor", ["user:ada", "sensor:repurchase_guard"])
def test_it_goes_no_further_back_than_a_rollback_went(actor: str):
    found = decide(BAD, move(DecisionKind.ROLLBACK, actor))
    assert (found.outcome, f"it was put back by {actor}" in found.reason) == (HOLD, True)


def test_without_an_earlier_version_it_says_so():
    found = decide(BAD, back_to=None)
    assert (found.outcome, "no earlier version" in found.reason) == (HOLD, True)


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
        assert (kind, back_to, facts.requests >= POLICY.min_requests) == (DecisionKind.PROMOTE, ONE, True)


def test_a_duration_that_is_not_counted_is_refused_with_those_that_are():
    with pytest.raises(ValidationError, match=r"0.3 s is not counted; choose one of 0.0002, .*1.0"):
        ServicePolicy(slow_seconds=0.3)


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
    found = counts_of(str(metrics.text(), "utf-8"), MODEL, TWO, slow_seconds=0.25)
    assert found.facts == ServiceFacts(requests=5, failed=1, slow=2)
    assert found.started == pytest.approx(psutil.Process().create_time(), abs=1)


def counted(requests: int, failed: int = 0, slow: int = 0, *, started: float = 1.0) -> Counted:
    return Counted(started=started, facts=ServiceFacts(requests=requests, failed=failed, slow=slow))


def test_a_window_counts_from_where_it_began_and_a_new_process_from_its_start():
    before = {"one": counted(100, 5, 1), "two": counted(100, 9, 0)}
    now = {"one": counted(150, 6, 1), "two": counted(110, 2, 0, started=2.0)}
    assert since(now, before) == ServiceFacts(requests=160, failed=3, slow=0)


def test_a_replica_that_was_not_counted_when_the_window_began_says_nothing_about_it():
    assert since({"new": counted(1000, 400)}, {}) == since({}, {"gone": counted(100, 5)}) == NOTHING


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
        return counted(*(was + risen for was, risen in rises))

    found = since({name: later(name, rise) for name, rise in more.items()}, before)
    assert 0 <= found.failed <= found.requests
    assert 0 <= found.slow <= found.requests
