"""BentoML: the estimator as it is, or its ONNX export. BENCHMARK_FOLDER holds both, BENCHMARK_KIND chooses."""

import os
import pickle
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd

FOLDER, KIND = Path(os.environ["BENCHMARK_FOLDER"]), os.environ["BENCHMARK_KIND"]


@bentoml.service(workers=int(os.environ.get("BENCHMARK_WORKERS", "1")))
class Benchmark:
    """One row of features to one probability."""

    def __init__(self) -> None:
        if KIND == "sklearn":
            with (FOLDER / "estimator.pkl").open("rb") as file:
                self.estimator: Any = pickle.load(file)
        else:
            import onnxruntime

            content = (FOLDER / "model.onnx").read_bytes()
            self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    @bentoml.api
    def predict(self, features: dict[str, float]) -> float:
        """The probability."""
        if KIND == "sklearn":
            return float(self.estimator.predict_proba(pd.DataFrame([features]))[0, 1])
        row = np.array([list(features.values())], dtype=np.float64)
        return float(self.session.run(None, {"features": row})[0][0])
