"""Which requests a realised gain may be measured on."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets_tests.bundles import sigmoid, write_bundle
from assets_tests.judging import MODEL, day, drift_report, training_manifest
from assets_tests.scenarios import evidence
from boucle.contracts.ids import ModelVersion
from boucle.contracts.trigger import AnswerKind, Gain, TriggerAnswer
from boucle.errors import BundleError
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.retraining import FOLLOWED_ANSWERS, _followed, note_answers
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import gains
from boucle_platform.model_loop.steps.gains import expected_gain, realised_gain, with_features
from boucle_platform.model_loop.steps.store import (
    GROUND_TRUTH,
    LEARNT,
    data_dir,
    version_dir,
    write_document,
    write_rows,
)

SPEC = catalogue.spec_of("repurchase")


def released(home: Home, scratch: Path, version: int, *features: str) -> None:
    """A version that was evaluated, with its bundle."""
    weights = [0.1 * version] * len(features)
    digest = home.bundles.put(write_bundle(scratch / str(version), weights=weights, features=features), MODEL)
    judged = evidence(version).model_copy(update={"bundle_digest": digest})
    write_document(home.evidence.file(judged, ".json"), judged)


def test_rows_count_whose_version_read_the_same_features_in_the_same_order(tmp_path: Path):
    home = Home(Settings(home=str(tmp_path / "home")))
    released(home, tmp_path, 1, "orders", "recency_days")
    released(home, tmp_path, 2, "orders", "recency_days", "refunds")
    released(home, tmp_path, 3, "recency_days", "orders")
    rows = pd.DataFrame({"model_version": [1, 2, 1, 3, 4], "entity_key": list("abcde")})
    kept = with_features(home, SPEC, rows, ("orders", "recency_days"))
    assert list(kept["entity_key"]) == ["a", "c"], "4 was never evaluated: what it read is not known"
    assert with_features(home, SPEC, rows[:0], ("orders", "recency_days")).empty


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Version 2 says three times as much of the same feature as version 1; both were trained up to July 1997."""
    made = Home(Settings(home=str(tmp_path / "home")))
    for version, weight in ((1, 0.5), (2, 1.5)):
        digest = made.bundles.put(write_bundle(tmp_path / str(version), weights=[weight], features=["recency"]), MODEL)
        judged = evidence(version).model_copy(update={"bundle_digest": digest})
        write_document(made.evidence.file(judged, ".json"), judged)
        write_document(version_dir(made, SPEC, ModelVersion(version)) / LEARNT, training_manifest())
    yield made
    made.state.close()


def became_known(
    home: Home, period: str, *, weight: float, n: int = 4_000, is_named: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a period's requests, answered by version 1, that come true as a model of this weight says."""
    rng = np.random.default_rng(7)
    feature = rng.normal(size=n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-weight * feature))).astype(np.int64)
    rows = pd.DataFrame(
        {
            "prediction_id": [f"{period}-{number}" for number in range(n)],
            "entity_key": pd.Series([str(number) if is_named else None for number in range(n)], dtype="str"),
            "features_as_of": pd.Timestamp(f"{period}-01"),
            "features": list(feature[:, None]),
            "label": labels,
            "proba": [sigmoid(0.5 * value) for value in feature],
            "model_version": 1,
            "pinned": False,
        }
    )
    (data_dir(home, SPEC) / GROUND_TRUTH).mkdir(parents=True, exist_ok=True)
    write_rows(data_dir(home, SPEC) / GROUND_TRUTH / f"{period}.parquet", rows)
    return feature, labels


def loss(feature: np.ndarray, labels: np.ndarray, weight: float) -> float:
    proba = 1 / (1 + np.exp(-weight * feature))
    return float(-np.mean(labels * np.log(proba) + (1 - labels) * np.log(1 - proba)))


def test_a_realised_gain_is_the_loss_of_the_version_before_less_that_of_the_new_one(home: Home):
    feature, labels = became_known(home, "1997-08", weight=1.5)
    found = realised_gain(home, SPEC, ModelVersion(2), ModelVersion(1))
    assert found is not None
    assert found.nats == pytest.approx(loss(feature, labels, 0.5) - loss(feature, labels, 1.5), abs=1e-9)
    assert 0 < found.low < found.nats < found.high
    assert found.rows == 4_000


def test_gains_are_the_same_where_nobody_is_named_and_each_request_is_about_somebody_of_its_own(home: Home):
    report = drift_report(period="1997-08", production_version=ModelVersion(1))
    found = []
    for is_named in (True, False):
        became_known(home, "1997-08", weight=1.5, is_named=is_named)
        found += [(realised_gain(home, SPEC, ModelVersion(2), ModelVersion(1)), expected_gain(home, SPEC, report))]
    assert None not in found[0]
    assert found[1] == found[0]


def test_a_version_that_made_it_worse_lost(home: Home):
    became_known(home, "1997-08", weight=0.5)
    found = realised_gain(home, SPEC, ModelVersion(2), ModelVersion(1))
    assert found is not None
    assert found.high < 0


def test_what_both_could_have_learnt_from_measures_nothing(home: Home):
    became_known(home, "1997-06", weight=1.5)
    assert realised_gain(home, SPEC, ModelVersion(2), ModelVersion(1)) is None


def test_what_is_expected_is_what_recalibration_would_have_gained(home: Home):
    feature, labels = became_known(home, "1997-08", weight=1.5)
    report = drift_report(period="1997-08", production_version=ModelVersion(1))
    found = expected_gain(home, SPEC, report)
    assert found is not None
    assert found.nats == pytest.approx(loss(feature, labels, 0.5) - loss(feature, labels, 1.5), abs=2e-3)
    became_known(home, "1997-08", weight=0.5)
    nothing = expected_gain(home, SPEC, report)
    assert nothing is not None
    assert nothing.nats == pytest.approx(0, abs=2e-3)


def test_nothing_is_expected_of_too_few_labels(home: Home):
    became_known(home, "1997-08", weight=1.5, n=SPEC.monitoring.min_labels - 1)
    assert expected_gain(home, SPEC, drift_report(period="1997-08", production_version=ModelVersion(1))) is None


def test_answers_without_a_version_push_none_out_whose_labels_are_awaited():
    def answer(number: int, version: int | None) -> TriggerAnswer:
        return TriggerAnswer(
            run_key=str(number), model=MODEL, kind=AnswerKind.PROMOTED if version else AnswerKind.FAILED, reason="r",
            dagster_run_id="", compared_with=ModelVersion(1), version=version and ModelVersion(version),
            at=day("1997-08-01") + timedelta(days=number),
        )  # fmt: skip

    awaited = [answer(0, 2), answer(1, 1)]
    failed = [answer(number, None) for number in range(2, 2 + FOLLOWED_ANSWERS)]
    assert [(one.run_key, version, before) for one, version, before in _followed([*failed, *awaited])] == [("0", 2, 1)]
    many = [answer(number, 2 + number) for number in range(FOLLOWED_ANSWERS + 2)]
    assert [one.run_key for one, _, _ in _followed(many)] == [
        str(number) for number in range(FOLLOWED_ANSWERS + 1, 1, -1)
    ]


def answered(home: Home, number: int, *, gain: Gain | None = None) -> None:
    """On record: so many days later version `number` came out of a trigger, after the version before it."""
    home.state.record_answer(
        TriggerAnswer(
            run_key=str(number),
            model=MODEL,
            kind=AnswerKind.PROMOTED,
            reason="r",
            dagster_run_id="",
            compared_with=ModelVersion(number - 1),
            version=ModelVersion(number),
            realised_gain=gain,
            at=day("1997-08-01") + timedelta(days=number),
        )
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


OLD, NEW = Gain(nats=0.01, rows=900), Gain(nats=0.02, rows=1_000)


@pytest.mark.parametrize("error", [BundleError("is gone"), FileNotFoundError("is gone"), ValueError("is gone")])
def test_an_answer_that_cannot_be_measured_is_told_keeps_its_gain_and_holds_no_other_up(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def measured(_home: Home, _spec: LoopSpec, version: ModelVersion, _before: ModelVersion) -> Gain:
        asked.append(version)
        if version == 4:
            raise error
        return NEW

    asked: list[ModelVersion] = []
    for number in (3, 4, 5):
        answered(home, number, gain=OLD)
    monkeypatch.setattr(gains, "realised_gain", measured)
    said, seen = note_answers(instance, home, SPEC, None)
    found = home.state.answers(MODEL)
    assert [found[key].realised_gain for key in "345"] == [NEW, OLD, NEW]
    assert "4: its realised gain cannot be measured, the next outcomes ask for it again: is gone" in said
    assert asked == [5, 4, 3], "newest first"
    assert note_answers(instance, home, SPEC, seen) == ("", seen), "not measured again without news"


def test_a_gain_on_record_stays_where_nothing_can_be_compared_any_more(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    answered(home, 3, gain=OLD)
    monkeypatch.setattr(gains, "realised_gain", lambda *_: None)
    assert note_answers(instance, home, SPEC, None)[0] == ""
    assert home.state.answers(MODEL)["3"].realised_gain == OLD
