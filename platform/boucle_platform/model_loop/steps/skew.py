"""Training/serving skew of one window: logged features against the snapshots that training reads, value by value."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from boucle.contracts.bundle import CONTRACT_FILE, BundleContract
from boucle.contracts.ids import Digest, PeriodKey
from boucle.contracts.verdict import Gate
from boucle.contracts.windows import Period
from boucle.errors import BundleError, NotEnoughDataError
from boucle.features.skew import differing_values
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle_adapters.home import Home
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.prediction_log import predictions_of

NAME = "training_serving_skew"
LIMIT = GateLimit(limit=0, unit="predictions that differ")


@dataclass(frozen=True, kw_only=True)
class Skew:
    """How many answers were made of other features than training reads, and which features those are."""

    gate: Gate
    by_feature: list[dict[str, Any]]


def training_serving_skew(home: Home, spec: LoopSpec, period: Period) -> Skew:
    """Compare every prediction of the period with the feature row of its (entity, features_as_of).

    A row that was corrected since it answered is no skew: any content that its period ever had may have answered.
    Without a prediction, the bundle that names the features, or the file of a snapshot, nothing is known.
    """
    predictions = predictions_of(home, spec, period).dropna(subset="features_as_of")  # else the caller gave them
    differing, counts = 0, Counter[str]()
    try:
        for digest, rows in predictions.groupby("bundle_digest"):
            names = _feature_names(home, Digest(str(digest)))
            for key, part in rows.groupby(rows["features_as_of"].map(partial(_asking, spec))):
                found = _differing(home, spec, PeriodKey(str(key)), part, names)
                differing += int(found.any(axis="columns").sum())
                counts.update({name: int(found[name].sum()) for name in names})
    except (BundleError, NotEnoughDataError) as error:
        nothing = gates.at_most(NAME, None, LIMIT, sample_size=0)
        return Skew(gate=gates.inconclusive(nothing, f"Not compared: {error}"), by_feature=[])
    gate = gates.at_most(NAME, float(differing), LIMIT, sample_size=len(predictions))
    return Skew(gate=gate, by_feature=[{"feature": name, "predictions": n} for name, n in counts.most_common() if n])


def _asking(spec: LoopSpec, features_as_of: pd.Timestamp) -> PeriodKey:
    return spec.asking(features_as_of.tz_localize("UTC").to_pydatetime()).key


def _differing(
    home: Home, spec: LoopSpec, period: PeriodKey, rows: pd.DataFrame, names: tuple[str, ...]
) -> pd.DataFrame:
    """Which values of predictions made of one period's features differ from every content of its snapshot."""
    values = pd.DataFrame(np.vstack(rows["features"].to_list()).astype(np.float64), columns=names, index=rows.index)
    served = pd.concat([rows[["entity_key", "features_as_of"]], values], axis="columns")
    store = SnapshotStore(home.settings.home_dir)
    versions = store.versions(spec.name, period)
    if not versions:
        raise NotEnoughDataError(f"'{spec.model}' has no validated features of {period}: materialise them again.")
    differing = pd.DataFrame(data=True, columns=names, index=rows.index)
    for number, manifest in enumerate(versions):
        left = differing.index[differing.any(axis="columns")]
        if left.empty:
            break
        kept = store.read(manifest).rename(columns={spec.entity: "entity_key", "as_of": "features_as_of"})
        compared = differing_values(served.loc[left], kept, names)
        # What differs is told against the content in force; an older one can only take a whole row back.
        update = left if number == 0 else left[~compared.any(axis="columns")]
        differing.loc[update] = compared.loc[update]
    return differing


def _feature_names(home: Home, digest: Digest) -> tuple[str, ...]:
    return BundleContract.model_validate_json((home.bundles.fetch(digest) / CONTRACT_FILE).read_bytes()).feature_names
