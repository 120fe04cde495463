"""Asset keys of one model, `<model>/<asset>`, and the tag that says who launched a run."""

import dagster as dg

from boucle_platform.model_loop.spec import LoopSpec

ACTOR_TAG = "boucle/actor"
"""The run tag that says who launched it: a sensor's name, or `user:<name>`."""


def key_of(spec: LoopSpec, asset: str) -> dg.AssetKey:
    """The key of one of the model's assets."""
    return dg.AssetKey([spec.model, asset])
