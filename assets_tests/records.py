"""Records of the prediction log, as serving writes them."""

from datetime import UTC, datetime
from typing import Any

from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.prediction import PredictionFields

_MOMENT = datetime(1997, 5, 1, tzinfo=UTC)


def prediction(number: int, **changes: Any) -> PredictionFields:
    """An answer of version 1 about user 4 as of 1 May 1997, with the second feature missing; `changes` by field."""
    record = PredictionFields(
        schema_version=1,
        prediction_id=str(number),
        request_id="r",
        at=_MOMENT,
        model=ModelName("repurchase"),
        entity_key=EntityKey("4"),
        as_of=_MOMENT,
        features_as_of=_MOMENT,
        model_version=ModelVersion(1),
        bundle_digest=Digest("0" * 64),
        plan_revision=1,
        assigned_role="production",
        answering_role="production",
        propensity=1.0,
        proba=0.25,
        features=(1.0, float("nan")),
        latency_ms=0.1,
        replica="one",
        fallback=None,
        pinned=False,
    )
    unknown = changes.keys() - record.keys()
    assert not unknown, f"a record has no {unknown}"
    return PredictionFields(**{**record, **changes})
