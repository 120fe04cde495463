"""Answers are compared with the features that training reads: a bug in between shows, a correction does not."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from assets_tests.bundles import write_bundle
from assets_tests.data.landing_world import month
from assets_tests.records import prediction
from boucle.contracts.ids import Digest, EntityKey
from boucle.contracts.verdict import Verdict
from boucle_adapters.home import Home
from boucle_adapters.online_store import OnlineStore, Snapshot
from boucle_adapters.settings import Settings
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.features import feature_names, publish_online
from boucle_platform.model_loop.steps.prediction_log import collect_predictions
from boucle_platform.model_loop.steps.skew import Skew, training_serving_skew

SPEC = catalogue.spec_of("repurchase")
NAMES = feature_names(SPEC)
APRIL, MAY = month("1997-04"), month("1997-05")


class Shop:
    """A home in which customers are asked about in May, with the features of the end of April."""

    def __init__(self, path: Path) -> None:
        self.home = Home(Settings(home=path / "home"))
        self.online = OnlineStore(self.home.settings.online_dir / SPEC.model)
        folder = write_bundle(path / "bundle", weights=[0.0] * len(NAMES), features=NAMES)
        self.bundle = self.home.bundles.put(folder, SPEC.name)
        self.asked = 0

    def publish(self, **first_feature: float) -> None:
        """Validate and publish customers, each with its first feature; the second is missing, the others count up."""
        rows = pd.DataFrame({"user_id": list(first_feature), "as_of": APRIL.end.replace(tzinfo=None)})
        for number, name in enumerate(NAMES):
            rows[name] = [value if number == 0 else None if number == 1 else number for value in first_feature.values()]
        rows = rows.astype(dict.fromkeys(NAMES, "float64") | {"as_of": "datetime64[us]"})
        SnapshotStore(self.home.settings.home_dir).write(
            rows, model=SPEC.name, period=APRIL, keys=["user_id", "as_of"], quarantined=0, created_at=APRIL.end
        )
        publish_online(self.home, SPEC, APRIL)

    def ask(self, entity: str, *, bundle: Digest | None = None, given: Sequence[float] | None = None) -> None:
        """Look the customer up as serving does, and log what was found, or what the caller gave."""
        self.online.refresh()
        found = self.online.look_up(EntityKey(entity), MAY.start, max_age_days=31)
        self.asked += 1
        self.home.log.append(
            prediction(
                self.asked,
                at=MAY.start,
                model=SPEC.name,
                entity_key=entity,
                features_as_of=None if given else found.as_of,
                bundle_digest=bundle or self.bundle,
                features=given or found.values,
            )
        )

    def skew(self) -> Skew:
        """What the check of May measures."""
        collect_predictions(self.home, SPEC, [MAY])
        return training_serving_skew(self.home, SPEC, MAY)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    made.publish(ada=1, bob=2)
    return made


def test_answers_from_the_published_features_have_no_skew(shop: Shop):
    for entity in ("ada", "bob", "ada"):
        shop.ask(entity)
    found = shop.skew()
    assert (found.gate.verdict, found.gate.measured, found.gate.sample_size) == (Verdict.PASSED, 0, 3)
    assert found.by_feature == []


def test_features_that_the_caller_gave_are_compared_with_nothing(shop: Shop):
    shop.ask("ada")
    shop.ask("ada", given=[-1.0] * len(NAMES))
    assert (shop.skew().gate.verdict, shop.skew().gate.sample_size) == (Verdict.PASSED, 1)


def test_a_look_up_that_gives_columns_in_another_order_is_skew(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    shop.ask("ada")
    look_up = Snapshot.look_up

    def reversed_columns(self, *args, **kwargs):
        found = look_up(self, *args, **kwargs)
        return found._replace(values=found.values[::-1])

    monkeypatch.setattr(Snapshot, "look_up", reversed_columns)
    shop.ask("bob")
    found = shop.skew()
    assert (found.gate.verdict, found.gate.measured, found.gate.sample_size) == (Verdict.FAILED, 1, 2)
    assert {row["feature"] for row in found.by_feature} >= {NAMES[0], NAMES[1]}


def test_one_feature_that_serving_fills_in_differently_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    look_up = Snapshot.look_up

    def filled(self, *args, **kwargs):
        found = look_up(self, *args, **kwargs)
        return found._replace(values=[0.0 if value != value else value for value in found.values])  # noqa: PLR0124

    monkeypatch.setattr(Snapshot, "look_up", filled)
    shop.ask("ada")
    shop.ask("bob")
    found = shop.skew()
    assert (found.gate.verdict, found.by_feature) == (Verdict.FAILED, [{"feature": NAMES[1], "predictions": 2}])


def test_features_that_were_corrected_after_they_answered_are_no_skew(shop: Shop):
    shop.ask("ada")
    shop.publish(ada=100, bob=2)
    shop.ask("ada")
    assert shop.skew().gate.verdict is Verdict.PASSED


def test_a_row_that_no_snapshot_ever_had_is_skew_in_every_feature(shop: Shop):
    shop.ask("ada")
    shop.publish(bob=2)
    for manifest in SnapshotStore(shop.home.settings.home_dir).versions(SPEC.name, APRIL.key)[1:]:
        (shop.home.settings.home_dir / manifest.file).with_suffix(".json").unlink()
    found = shop.skew()
    assert (found.gate.verdict, len(found.by_feature)) == (Verdict.FAILED, len(NAMES))


def test_without_a_prediction_nothing_is_known(shop: Shop):
    found = shop.skew()
    assert (found.gate.verdict, found.gate.sample_size) == (Verdict.INCONCLUSIVE, 0)


def test_without_the_bundle_that_names_the_features_nothing_is_known(shop: Shop):
    shop.ask("ada", bundle=Digest("0" * 64))
    found = shop.skew()
    assert found.gate.verdict is Verdict.INCONCLUSIVE
    assert "Not compared: " in found.gate.detail


@pytest.mark.parametrize("suffix", ["parquet", "json"])
@pytest.mark.parametrize("content", [None, b"{"], ids=["gone", "torn"])
def test_without_a_whole_snapshot_nothing_is_known(shop: Shop, suffix: str, content: bytes | None):
    shop.ask("ada")
    for file in shop.home.settings.data_dir.rglob(f"validated_features/*/*.{suffix}"):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    found = shop.skew()
    assert found.gate.verdict is Verdict.INCONCLUSIVE
    assert "materialise validated_features" in found.gate.detail


def test_without_any_snapshot_of_the_moment_nothing_is_known(shop: Shop):
    shop.ask("ada")
    shutil.rmtree(shop.home.settings.data_dir / SPEC.model / "validated_features")
    found = shop.skew()
    assert found.gate.verdict is Verdict.INCONCLUSIVE
    assert "has no validated features of 1997-04" in found.gate.detail
