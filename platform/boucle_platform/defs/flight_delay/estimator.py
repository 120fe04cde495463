"""The estimator of `flight_delay`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PARAMETERS: dict[str, Any] = {
    "max_iter": 80,
    "learning_rate": 0.1,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 300,
    "early_stopping": False,
}
"""What is tried: recorded with every version."""


def build(seed: int) -> "Pipeline":
    """An unfitted pipeline around gradient boosting: 80 small trees, large leaves; missing values are understood."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

    boosting = HistGradientBoostingClassifier(**PARAMETERS, random_state=seed)
    return Pipeline([("boosting", boosting)])
