"""What a tutorial builds: FastAPI, a pydantic model of the features, and the pickled estimator or its ONNX export.

python naive.py PORT FOLDER sklearn|onnx WORKERS
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    """One row of features."""

    features: dict[str, float | None]


class Answer(BaseModel):
    """The probability."""

    proba: float


def build() -> FastAPI:
    """The app that the arguments of the process name."""
    folder, kind = Path(sys.argv[2]), sys.argv[3]
    app = FastAPI()
    if kind == "sklearn":
        with (folder / "estimator.pkl").open("rb") as file:
            estimator: Any = pickle.load(file)

        @app.post("/predict")
        def predict(request: Request) -> Answer:
            frame = pd.DataFrame([request.features]).astype("float64")
            return Answer(proba=float(estimator.predict_proba(frame)[0, 1]))

        return app

    import onnxruntime

    session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])

    @app.post("/predict")
    async def predict_onnx(request: Request) -> Answer:
        row = np.array([[np.nan if value is None else value for value in request.features.values()]])
        return Answer(proba=float(session.run(None, {"features": row})[0][0]))

    return app


if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[4])
    uvicorn.run("naive:build", factory=True, port=port, workers=workers, access_log=False, log_level="warning")
