"""Which steps of a retraining begin again by themselves, how often, and which do not."""

from pathlib import Path

import dagster as dg
import pytest

from boucle.errors import BoucleError, NotEnoughDataError, RegistryError
from boucle_platform.instance import failure_text
from boucle_platform.model_loop import retrying
from boucle_platform.model_loop.retrying import RETRIES, retried


class Service:
    """Fails so many times, then answers."""

    def __init__(self, error: BoucleError, *, times: int) -> None:
        self.error, self.times, self.asked = error, times, 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return "here"


def run(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dg.ExecuteInProcessResult:
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 0.0)

    @dg.asset
    def step(context: dg.AssetExecutionContext) -> str:
        with retried(context):
            return service.ask()

    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        return dg.materialize([step], instance=instance, raise_on_error=False)


def test_a_service_that_comes_back_in_time_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    service = Service(RegistryError("away"), times=RETRIES)
    assert run(service, tmp_path, monkeypatch).success
    assert service.asked == RETRIES + 1


def test_a_service_that_stays_away_fails_the_run_with_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    service = Service(RegistryError("MLflow at http://mlflow:5000 is away."), times=99)
    done = run(service, tmp_path, monkeypatch)
    assert not done.success
    assert service.asked == RETRIES + 1
    assert "MLflow at http://mlflow:5000 is away." in failure_text(done)


def test_too_little_data_is_an_answer_and_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    service = Service(NotEnoughDataError("land further periods"), times=99)
    assert not run(service, tmp_path, monkeypatch).success
    assert service.asked == 1
