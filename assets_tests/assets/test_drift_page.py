"""The page of a version shows that version's features, whatever the model declares today."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets_tests.bundles import promote
from assets_tests.judging import live
from boucle.contracts.ids import Digest
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.drift import measure_drift
from boucle_platform.model_loop.steps.features import feature_names
from boucle_platform.model_loop.steps.store import version_dir, write_document, write_rows

SPEC = catalogue.spec_of("repurchase")
OLD_FEATURES = ("recency", "freq")


def answers(rows: int) -> pd.DataFrame:
    """What version 1, which knows two features, answered."""
    values = np.random.default_rng(7).uniform(0, 3, size=(rows, len(OLD_FEATURES)))
    frame = pd.DataFrame({"entity_key": [str(n) for n in range(rows)], "model_version": 1})
    return frame.assign(proba=0.5, features=list(values))


# Evidently and what it imports use names that numpy and litestar have deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_feature_that_is_new_since_production_was_trained_does_not_break_its_page(tmp_path: Path):
    assert len(feature_names(SPEC)) > len(OLD_FEATURES)
    home = Home(Settings(home=str(tmp_path)))
    promote(home.state, version=1, digest=Digest("1" * 64))
    folder = version_dir(home, SPEC, live().reference.version)
    seen = answers(200)
    write_document(folder / "reference.json", live().reference)
    sample = pd.DataFrame(np.vstack(seen["features"].to_list()), columns=list(OLD_FEATURES)).assign(proba=0.4)
    write_rows(folder / "reference_sample.parquet", sample)

    report, page = measure_drift(home, SPEC, SPEC.period("1997-05"), seen, seen.head(0).assign(label=0), draw=True)

    assert set(report.feature_psi) == set(OLD_FEATURES)
    shown = page.read_text()
    assert all(name in shown for name in OLD_FEATURES)
    home.state.close()
