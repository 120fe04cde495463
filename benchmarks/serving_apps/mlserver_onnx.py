"""MLServer with a runtime for ONNX, which it does not ship: the way its own documents show."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):
    """One session."""

    async def load(self) -> bool:
        """Read the model."""
        uri = await get_model_uri(self._settings)
        self.session = onnxruntime.InferenceSession(uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score a tensor of rows."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec).astype(np.float64)
        answers = self.session.run(None, {"features": rows})[0]
        output = NumpyCodec.encode_output("proba", answers)
        return InferenceResponse(model_name=self.name, outputs=[output])
