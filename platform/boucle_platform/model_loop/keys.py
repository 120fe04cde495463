"""Asset keys of one model, `<model>/<asset>`, and the tag that says who launched a run."""

import dagster as dg

from boucle_platform.model_loop.spec import LoopSpec

FRESH = "data_is_fresh"
"""The check of every raw asset."""
ACTOR_TAG = "boucle/actor"
"""The run tag that says who launched it: a sensor's name, or `user:<name>`."""

FIRST_PARTITION_TAG, LAST_PARTITION_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Set by Dagster on a run of several partitions, and understood by it where such a run is requested."""


def key_of(spec: LoopSpec, asset: str) -> dg.AssetKey:
    """The key of one of the model's assets."""
    return dg.AssetKey([spec.model, asset])
