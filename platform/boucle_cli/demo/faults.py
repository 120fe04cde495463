"""What a replay does wrong on purpose: a candidate that learnt from shuffled labels, landing files that are broken."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd

from boucle.contracts.data import TrainingManifest
from boucle.contracts.windows import Period
from boucle.errors import ConfigurationError
from boucle.features.contract import REASON
from boucle.features.digest import content_digest
from boucle.features.raw_source import Kind
from boucle_adapters.home import Home
from boucle_adapters.landing_zone import landing_file, publish
from boucle_adapters.snapshots import SnapshotStore
from boucle_cli.demo.summary import Quarantined
from boucle_platform.instance import Runner, RunOutcome
from boucle_platform.model_loop.automation import RETRAIN_ASSETS, period_job_name
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.landing import feed
from boucle_platform.model_loop.steps.store import document_file, read_document, write_document
from boucle_platform.model_loop.steps.training import read_rows, store_rows
from boucle_platform.model_loop.steps.training_rows import KEYS

AFTER_TRAINING_SET = tuple(name for name in RETRAIN_ASSETS if name != "training_set")
BROKEN_ROWS = 12
NONSENSE = {
    Kind.MONEY: "-5.00",
    Kind.DATE: "2099-01-01",
    Kind.MOMENT: "2099-01-01T00:00:00Z",
    Kind.INTEGER: "many",
    Kind.NUMBER: "many",
}


@contextmanager
def shuffled_labels(home: Home, spec: LoopSpec) -> Iterator[None]:
    """For a while, a training set whose training labels are shuffled, as a broken join upstream would leave it."""
    file = document_file(home, spec, "training_set")
    good = read_document(file, TrainingManifest)
    write_document(file, _shuffled(home, spec, good))
    try:
        yield
    finally:
        write_document(file, good)


def _shuffled(home: Home, spec: LoopSpec, manifest: TrainingManifest) -> TrainingManifest:
    rows = read_rows(home, manifest)
    training = rows["part"] == "train"
    shuffled = rows.loc[training, "label"].sample(frac=1, random_state=spec.training.seed).to_numpy()
    rows.loc[training, "label"] = shuffled
    digest = content_digest(rows, KEYS)
    return manifest.model_copy(
        update={
            "content_digest": digest,
            "file": store_rows(home, spec, rows, digest),
            "note": "training labels shuffled on purpose",
        }
    )


def broken_files(runner: Runner, spec: LoopSpec, landed: Sequence[Period]) -> Quarantined:
    """Land one of the newest periods again twice, broken: with bad rows, then without a column; then as it was."""
    home, (period, good) = runner.home, _large_enough(spec, landed)
    with_bad_rows = pd.concat([good, _bad_rows(good, spec)], ignore_index=True)
    _land(runner, spec, period, with_bad_rows)
    set_aside = SnapshotStore(home.settings.home_dir).read_quarantine(spec.name, _first(spec), period.key)
    refused = _land(runner, spec, period, good.drop(columns=good.columns[-1]))
    feed(home, spec, period.key)
    for _ in landed:
        with runner.tick(f"{spec.model}_landing") as requests:
            for request in requests:
                runner.run_requested(period_job_name(spec), request)
        if not requests:
            break
    reasons = set_aside[REASON].str.split(" (value", regex=False).str[0].value_counts()
    return Quarantined(
        rows=len(set_aside),
        reasons={str(reason): int(count) for reason, count in reasons.items()},
        refused_whole="" if refused.succeeded else refused.error.splitlines()[0],
    )


def _large_enough(spec: LoopSpec, landed: Sequence[Period]) -> tuple[Period, pd.DataFrame]:
    """The newest period of which so few bad rows are set aside and not the whole file."""
    source = spec.source(_first(spec))
    for period in reversed(landed):
        rows = spec.history.export_period(source.name, period.key)
        if rows is not None and source.limits.max_rejected_share * len(rows) >= BROKEN_ROWS:
            return period, rows
    raise ConfigurationError(
        f"No file of {source.name} is so large that {BROKEN_ROWS} bad rows may be set aside of it."
    )


def _land(runner: Runner, spec: LoopSpec, period: Period, rows: pd.DataFrame) -> RunOutcome:
    publish(rows, landing_file(runner.settings.landing_dir, spec.name, _first(spec), period.key))
    return runner.run(period_job_name(spec), partition=period.key, only=[(spec.model, raw) for raw in spec.raws])


def _first(spec: LoopSpec) -> str:
    return next(iter(spec.sources))


def _bad_rows(good: pd.DataFrame, spec: LoopSpec) -> pd.DataFrame:
    """Rows that no source can mean: negative amounts, a day to come, text where a number belongs."""
    of_kind = {column.kind: column.name for column in spec.source(_first(spec)).columns}
    wrong = [(of_kind[kind], value) for kind, value in NONSENSE.items() if kind in of_kind]
    bad = good.head(BROKEN_ROWS).reset_index(drop=True).copy()
    for row in range(len(bad)):
        name, value = wrong[row * len(wrong) // len(bad)]
        bad.loc[row, name] = value
    return bad
