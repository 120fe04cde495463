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
from boucle_platform.model_loop.steps.store import data_dir, version_dir, write_document, write_rows

SPEC = catalogue.spec_of("repurchase")
MAY = SPEC.period("1997-05")
OLD_FEATURES = ("recency", "freq")


def answers(rows: int) -> pd.DataFrame:
    """What version 1, which knows two features, answered."""
    values = np.random.default_rng(7).uniform(0, 3, size=(rows, len(OLD_FEATURES)))
    frame = pd.DataFrame({"entity_key": [str(n) for n in range(rows)], "model_version": 1})
    return frame.assign(proba=0.5, features=list(values))


def home_with(folder: Path, answered: pd.DataFrame) -> Home:
    """A home with version 1 in production, its reference, and what it answered in May."""
    home = Home(Settings(home=str(folder)))
    promote(home.state, version=1, digest=Digest("1" * 64))
    of_version = version_dir(home, SPEC, live().reference.version)
    write_document(of_version / "reference.json", live().reference)
    seen = answers(200)
    sample = pd.DataFrame(np.vstack(seen["features"].to_list()), columns=list(OLD_FEATURES)).assign(proba=0.4)
    write_rows(of_version / "reference_sample.parquet", sample)
    write_rows(data_dir(home, SPEC) / "predictions" / f"{MAY.key}.parquet", answered)
    return home


# Evidently and what it imports use names that numpy and litestar have deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_feature_that_is_new_since_production_was_trained_does_not_break_its_page(tmp_path: Path):
    assert len(feature_names(SPEC)) > len(OLD_FEATURES)
    home = home_with(tmp_path, answers(200))

    report, page = measure_drift(home, SPEC, [MAY], draw=True)

    assert set(report.feature_psi) == set(OLD_FEATURES)
    shown = page.read_text()
    assert all(name in shown for name in OLD_FEATURES)
    home.state.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_answers_are_enough_for_a_page_and_one_has_no_spread_to_draw(tmp_path: Path):
    for rows, is_drawn in ((1, False), (2, True)):
        home = home_with(tmp_path / str(rows), answers(rows))
        report, page = measure_drift(home, SPEC, [MAY], draw=True)
        assert report.predictions == rows
        assert (page is not None) is is_drawn
        home.state.close()
