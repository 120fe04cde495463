"""Fit the benchmark's estimator with the scikit-learn of this environment: pickles are of one version only.

python make_estimator.py FOLDER
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

FEATURES, ROWS = 10, 20_000


def data() -> tuple[pd.DataFrame, "np.typing.NDArray[np.int64]"]:
    """Ten features, some of them missing now and then, and a label that depends on three of them."""
    random = np.random.default_rng(7)
    values = random.normal(size=(ROWS, FEATURES)).round(3)
    logit = values[:, 0] - 0.7 * values[:, 1] * values[:, 2] - 1.5
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    values[random.random(values.shape) < 0.02] = np.nan
    return pd.DataFrame(values, columns=[f"feature_{number}" for number in range(FEATURES)]), labels


def fitted() -> Pipeline:
    """The size of the shipped models: 80 trees of up to 15 leaves."""
    boosting = HistGradientBoostingClassifier(
        max_iter=80, max_leaf_nodes=15, min_samples_leaf=100, early_stopping=False, random_state=0
    )
    rows, labels = data()
    return Pipeline([("boosting", boosting)]).fit(rows, labels)


if __name__ == "__main__":
    with (Path(sys.argv[1]) / "estimator.pkl").open("wb") as file:
        pickle.dump(fitted(), file)
