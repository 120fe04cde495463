"""Which requests a realised gain may be measured on."""

from pathlib import Path

import pandas as pd

from assets_tests.bundles import write_bundle
from assets_tests.judging import MODEL
from assets_tests.scenarios import evidence
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.gains import with_features
from boucle_platform.model_loop.steps.store import write_document

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
