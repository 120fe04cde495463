"""What the demo breaks on purpose is whole again afterwards."""

from pathlib import Path

import pandas as pd
import pytest

from assets_tests.judging import MODEL, day
from boucle.contracts.data import TrainingManifest
from boucle.features.digest import content_digest
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_cli.demo.faults import shuffled_labels
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.store import document_file, read_document, write_document
from boucle_platform.model_loop.steps.training import KEYS, read_rows, store_rows

SPEC = catalogue.spec_of("repurchase")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a training set of 40 training and 10 holdout rows."""
    made = Home(Settings(home=str(tmp_path)))
    rows = pd.DataFrame(
        {
            "entity_key": [str(number) for number in range(50)],
            "as_of": pd.Timestamp("1997-04-01"),
            "label": [1] * 20 + [0] * 20 + [1] * 5 + [0] * 5,
            "part": ["train"] * 40 + ["holdout"] * 10,
        }
    )
    digest = content_digest(rows, KEYS)
    manifest = TrainingManifest(
        model=MODEL,
        watermark=day("1997-07-01"),
        horizon_days=30,
        train_as_of=(day("1997-04-01"),),
        holdout_as_of=(day("1997-06-01"),),
        holdout_from=day("1997-06-01"),
        snapshots={},
        feature_names=(),
        train_rows=40,
        train_positives=20,
        holdout_rows=10,
        holdout_positives=5,
        content_digest=digest,
        file=store_rows(made, SPEC, rows, digest),
        gates=(),
    )
    write_document(document_file(made, SPEC, "training_set"), manifest)
    return made


def training_set(home: Home) -> TrainingManifest:
    return read_document(document_file(home, SPEC, "training_set"), TrainingManifest)


def test_only_training_labels_are_shuffled_and_the_training_set_says_so(home: Home):
    good = read_rows(home, training_set(home))
    with shuffled_labels(home, SPEC):
        worse, rows = training_set(home), read_rows(home, training_set(home))
    assert worse.note == "training labels shuffled on purpose"
    assert worse.content_digest == content_digest(rows, KEYS)
    assert rows["label"].to_list()[:40] != good["label"].to_list()[:40]
    assert rows["label"].to_list()[40:] == good["label"].to_list()[40:]
    assert rows["label"].sum() == good["label"].sum()


def test_the_training_set_is_put_back_afterwards(home: Home):
    good = training_set(home)
    with shuffled_labels(home, SPEC):
        assert training_set(home) != good
    assert training_set(home) == good


def test_the_training_set_is_put_back_when_the_demo_fails_in_between(home: Home):
    good = training_set(home)
    with pytest.raises(RuntimeError), shuffled_labels(home, SPEC):
        raise RuntimeError("the run failed before a decision")
    assert training_set(home) == good
