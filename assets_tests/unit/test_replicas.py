"""Waiting for replicas: every live one has to serve the revision, and time is limited."""

import pytest

from assets_tests.scenarios import MODEL
from boucle_adapters import replicas
from boucle_adapters.memory import MemoryStateStore
from boucle_adapters.replicas import Followed, wait_until_served

OTHER = type(MODEL)("churn")


class Replicas(MemoryStateStore):
    """Live replicas that answer the n-th question as told; the last answer stays."""

    def __init__(self, *answers: dict[str, dict[str, int]]) -> None:
        super().__init__()
        self.answers, self.asked = answers, 0

    def replicas(self, *, max_age_seconds: float):
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]

    def addresses(self, *, max_age_seconds: float):
        return {"one": "one", "two": "two"}


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that moves by each sleep."""
    now = [100.0]
    monkeypatch.setattr(replicas.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(replicas.time, "sleep", lambda length: now.__setitem__(0, now[0] + length))
    return now


class Answers:
    """What each address says over HTTP, the n-th time it is asked; the last answer stays."""

    def __init__(self, **said: list[int | None]) -> None:
        self.said = said

    def __call__(self, address: str, model: str) -> int | None:
        answers = self.said.get(address, [None])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def wait(store: Replicas, *, timeout: float = 1.0) -> Followed:
    return wait_until_served(store, MODEL, 3, timeout_seconds=timeout, replica_timeout_seconds=3)


def test_without_a_live_replica_it_returns_at_once_and_is_not_complete():
    store = Replicas({})
    followed = wait(store)
    assert (followed.complete, store.asked) == (False, 1)
    assert followed.sentence() == "no live replica; the plan is served as soon as one starts"


def test_it_waits_for_the_last_replica():
    store = Replicas(
        {"one": {MODEL: 2}, "two": {MODEL: 2}},
        {"one": {MODEL: 3}, "two": {MODEL: 2}},
        {"one": {MODEL: 3}, "two": {MODEL: 4}},
    )
    followed = wait(store)
    assert (followed.complete, followed.served, followed.behind) == (True, ("one", "two"), ())
    assert followed.seconds == pytest.approx(0.04)
    assert followed.sentence() == "2 replica(s) serve revision 3 after 0.04 s (by their own report alone: one, two)"


def test_a_replica_counts_once_it_answers_as_it_reports(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replicas, "served_revision", Answers(one=[3], two=[2, 0, 3]))
    followed = wait(Replicas({"one": {MODEL: 3}, "two": {MODEL: 3}}))
    assert (followed.served, followed.asked) == (("one", "two"), ("one", "two"))
    assert followed.seconds == pytest.approx(0.04)
    assert followed.sentence() == "2 replica(s) serve revision 3 after 0.04 s"


def test_a_replica_that_reports_a_revision_and_answers_by_another_is_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replicas, "served_revision", Answers(one=[3], two=[2]))
    assert wait(Replicas({"one": {MODEL: 3}, "two": {MODEL: 3}})).behind == ("two",)


def test_a_replica_that_stays_behind_is_named_when_time_is_over():
    followed = wait(Replicas({"one": {MODEL: 3}, "two": {MODEL: 2}}))
    assert (followed.complete, followed.served, followed.behind) == (False, ("one",), ("two",))
    assert 1.0 < followed.seconds < 1.1
    assert followed.sentence() == "not on revision 3 after 1.0 s: two"


def test_a_replica_that_falls_silent_is_named_and_not_waited_for():
    followed = wait(Replicas({"one": {MODEL: 3}, "two": {MODEL: 2}}, {"one": {MODEL: 3}}))
    assert (followed.complete, followed.served, followed.gone) == (True, ("one",), ("two",))
    assert followed.sentence().endswith("; silent since: two")
    assert wait(Replicas({"one": {MODEL: 2}}, {})).sentence().endswith("one starts; silent since: one")


def test_a_replica_that_knows_only_another_model_is_behind():
    assert wait(Replicas({"one": {OTHER: 9}}), timeout=0.1).behind == ("one",)
