"""What the guard's sensor holds against a version, by what the replicas had counted at two looks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from assets_tests.bundles import MODEL, NOVEMBER, promote
from boucle.contracts.facts import LoadFacts, ServiceFacts
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.performance import PerformanceReport
from boucle.contracts.service import BurnRule
from boucle.contracts.traffic_plan import NewPlan, Role, Strategy
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.operations.production import last_move
from boucle.policy.performance import LOSS
from boucle_adapters.memory import MemoryStateStore
from boucle_adapters.replica_metrics import Counted
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop import guard as sensor
from boucle_platform.model_loop.guard import Watch

EXAMPLES = Path(__file__).parents[1] / "contract" / "documents"
SPEC = catalogue.spec_of("repurchase")
OLD = Counted(started=1.0, facts=ServiceFacts(requests=900, failed=0, slow=700, asked=900))


class Looks:
    """The sensor's looks at one replica, whose counts are said by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.counted, self.now = MemoryStateStore(), OLD, 1e9
        self.home = SimpleNamespace(state=self.state, settings=SimpleNamespace(replica_timeout_seconds=3))
        self.slow = SPEC.service.slow
        monkeypatch.setattr(sensor, "read_counts", self._read)
        monkeypatch.setattr(sensor, "time", SimpleNamespace(time=lambda: self.now))

    def _read(self, *_: object, **__: object) -> Mapping[str, Counted]:
        return {"one": self.counted}

    def look(self, watch: Watch, *, slow_seconds: float = 1.0) -> Watch:
        service = SPEC.service.model_copy(update={"slow_seconds": slow_seconds, "slow": self.slow})
        spec = SPEC.model_copy(update={"service": service})
        seen = sensor._looked(self.home, spec, last_move(self.state, MODEL), watch)
        return Watch.read(seen.written())

    def later(self, watch: Watch, seconds: float, *, requests: int, started: float = 1.0) -> Watch:
        """One more look after so many seconds in which so many requests failed and as many did not."""
        facts = self.counted.facts if self.counted.started == started else ServiceFacts(requests=0, failed=0, slow=0)
        facts = replace(
            facts,
            requests=facts.requests + 2 * requests,
            failed=facts.failed + requests,
            asked=facts.asked + 2 * requests,
        )
        self.counted, self.now = Counted(started=started, facts=facts), self.now + seconds
        return self.look(watch)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def promoted(looks: Looks, version: int) -> None:
    promote(looks.state, version=version, digest=Digest(f"{version}" * 64))


def test_all_that_a_new_version_answered_counts_from_its_first_look(looks: Looks):
    promoted(looks, 1)
    watch = looks.look(Watch())
    promoted(looks, 2)
    looks.counted = replace(OLD, facts=ServiceFacts(requests=60, failed=60, slow=0, asked=960))
    assert looks.look(watch).measured(60) == replace(looks.counted.facts, asked=60)


def test_what_the_winner_of_a_trial_answered_before_it_came_is_not_held_against_it(looks: Looks):
    promoted(looks, 1)
    production = looks.state.plan(MODEL).production
    tried = production.model_copy(update={"version": ModelVersion(2), "weight": 50, "role": Role.CHALLENGER})
    trial = NewPlan(strategy=Strategy.AB, arms=(production.model_copy(update={"weight": 50}), tried))
    looks.state.publish_plan(last_move(looks.state, MODEL), plan=trial, actor="test", at=NOVEMBER)
    watch = looks.look(looks.look(Watch()))
    promoted(looks, 2)
    assert looks.look(watch).measured(60) == ServiceFacts(requests=0, failed=0, slow=0)


def test_another_bound_of_slow_begins_to_count_anew(looks: Looks):
    promoted(looks, 1)
    watch = looks.look(looks.look(Watch()))
    looks.counted = replace(OLD, facts=replace(OLD.facts, slow=850))
    assert looks.look(watch, slow_seconds=0.25).measured(60).slow == 0
    assert looks.look(watch).measured(60).slow == 150


HOUR = BurnRule(factor=6, long_seconds=3600, short_seconds=300)


def test_what_failed_in_a_silence_is_held_against_nobody_and_what_failed_before_and_after_it_is(looks: Looks):
    looks.slow = (*looks.slow, HOUR)
    promoted(looks, 1)
    watch = looks.later(looks.look(Watch()), 20, requests=100)
    watch = looks.later(watch, 31, requests=5_000)
    assert (watch.measured(15).failed, watch.measured(60).failed, watch.measured(3600).failed) == (0, 100, 100)
    watch = looks.later(watch, 4, requests=30)
    assert (watch.measured(15).failed, watch.measured(60).failed, watch.measured(3600).failed) == (30, 130, 130)


def test_a_silence_makes_no_window_longer(looks: Looks):
    """What failed in the 2 s before it is no failure of the minute after it."""
    promoted(looks, 1)
    watch = looks.later(looks.look(Watch()), 2, requests=100)
    assert looks.later(watch, 1200, requests=100).measured(60).failed == 0


def test_a_replica_that_started_in_a_silence_is_counted_from_its_end(looks: Looks):
    promoted(looks, 1)
    watch = looks.later(looks.look(Watch()), 4, requests=100)
    watch = looks.later(watch, 40, requests=500, started=2.0)
    assert looks.later(watch, 4, requests=30, started=2.0).measured(60).failed == 30


def test_a_replica_that_cannot_be_read_after_a_silence_is_counted_from_when_it_can_be_again(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
):
    promoted(looks, 1)
    watch = looks.later(looks.look(Watch()), 4, requests=100)
    with monkeypatch.context() as away:
        away.setattr(sensor, "read_counts", lambda *_, **__: {})
        watch = looks.later(watch, 40, requests=500)
    assert looks.later(watch, 4, requests=500).measured(60).failed == 0


def test_how_often_callers_ask_is_known_from_the_end_of_a_silence(looks: Looks):
    promoted(looks, 1)
    watch = looks.later(looks.look(Watch()), 20, requests=100)
    watch = looks.later(looks.later(watch, 31, requests=100), 4, requests=100)
    assert watch.load(60) == LoadFacts(asked=200, refused=0, seconds=4)


def test_looks_that_are_always_too_far_apart_say_so_each_time(looks: Looks):
    promoted(looks, 1)
    watch = looks.look(Watch())
    for _ in range(3):
        last, watch = watch, looks.later(watch, 45, requests=100)
        (said,) = sensor._silence(last, watch)
        assert said.startswith("The guard had not looked for 45 s")
    assert sensor._silence(watch, looks.later(watch, 4, requests=100)) == []


def test_looks_a_minute_apart_are_enough_for_rules_that_look_further_back(looks: Looks):
    looks.slow = (HOUR,)
    promoted(looks, 1)
    watch = looks.look(Watch())
    for _ in range(3):
        last, watch = watch, looks.later(watch, 60, requests=100)
        assert sensor._silence(last, watch) == []
    assert watch.measured(3600).failed == 300


def test_without_a_profile_of_the_holdout_no_increase_of_log_loss_is_sure(looks: Looks, tmp_path: Path):
    """The files of the version are not there; its report is."""
    promoted(looks, 1)
    report = PerformanceReport.model_validate_json((EXAMPLES / "PerformanceReport.json").read_text())
    lost = Gate(
        name=LOSS,
        verdict=Verdict.FAILED,
        measured=0.9,
        bound=Bound.AT_MOST,
        limit=0.02,
        unit="nats",
        sample_size=900,
        low=0.8,
        high=1.0,
    )
    found = report.model_copy(update={"gates": (lost,)})
    looks.home.settings.data_dir = tmp_path
    looks.home.monitoring = SimpleNamespace(newest_about=lambda *_, **__: found)
    (gate,) = sensor._loss_gates(looks.home, SPEC, last_move(looks.state, MODEL))
    assert (gate.measured, gate.verdict) == (0.9, Verdict.INCONCLUSIVE)
