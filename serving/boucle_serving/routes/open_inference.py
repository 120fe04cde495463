"""The Open Inference Protocol, version 2, over REST, as KServe, Triton and MLServer speak it.

https://github.com/kserve/open-inference-protocol. Inputs are the entity key and `as_of`, a tensor of shape [n] each, or
every feature of the contract, a tensor of numbers each; clients that send tensors as
bytes after the JSON (Triton's binary data extension, which its client does by default) are understood, answers are
JSON. Errors are problem documents with the protocol's `error`.
"""

import json
import struct
from collections.abc import Mapping
from enum import Enum
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import PredictionFields
from boucle_serving.admission import Admission
from boucle_serving.body import json_of
from boucle_serving.documented import PREDICTION_PROBLEMS
from boucle_serving.limited_routes import looking
from boucle_serving.predictor import ServedModel
from boucle_serving.problems import FieldError, InvalidRequestError, UnknownModelError
from boucle_serving.readiness import Readiness
from boucle_serving.rows import RowsService

_HEADER_LENGTH = "inference-header-content-length"
_NUMBERS = {f"{sign}INT{bits}": f"<{sign.lower() or 'i'}{bits // 8}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
_NUMBERS |= {f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)}
"""Datatypes of numbers, and how numpy names their little-endian form."""
_OUTPUTS = {"proba": "FP64", "prediction_id": "BYTES", "model_version": "INT64"}
_EXAMPLE = {
    "inputs": [
        {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["4"]},
        {"name": "as_of", "datatype": "BYTES", "shape": [1], "data": ["1997-10-01"]},
    ]
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
    }
}


def open_inference_router(rows: RowsService, readiness: Readiness) -> APIRouter:
    """Server metadata, health, inference."""
    router = APIRouter(prefix="/v2", tags=["open inference"], responses=PREDICTION_PROBLEMS)

    @router.get("", summary="This server")
    async def server() -> dict[str, Any]:
        """Name and release."""
        return {"name": "boucle", "version": version("boucle"), "extensions": ["binary_tensor_data"]}

    @router.get("/health/live", summary="The process runs")
    async def live() -> dict[str, bool]:
        """200 as long as the process can answer at all."""
        return {"live": True}

    @router.get("/health/ready", summary="A model can answer")
    async def ready() -> JSONResponse:
        """As /readyz, in the protocol's form."""
        found = readiness.document()["status"] == "ready"
        return JSONResponse({"ready": found}, status_code=200 if found else 503)

    @router.get("/models/{model}/versions/{number}/ready", summary="A version can answer")
    @router.get("/models/{model}/ready", summary="A model can answer")
    async def model_ready(model: str, number: str = "") -> dict[str, Any]:
        """200 when it is in production here."""
        served = _served(rows, model, number)
        return {"name": served.plan.model, "ready": True}

    @router.post("/models/{model}/versions/{number}/infer", summary="Predict with a version", openapi_extra=_BODY)
    @router.post("/models/{model}/infer", summary="Predict with a model", openapi_extra=_BODY)
    async def infer(request: Request, model: str, number: str = "") -> Response:
        """All rows are answered, or none is. The version of the path must be the one in production."""
        served = _served(rows, model, number)
        async with rows.body(request) as content:
            asked, raw = _split_body(content, request.headers.get(_HEADER_LENGTH))
            wanted = _wanted(asked)
            answered = await rows.answer(request, served.plan.model, tensor_rows(asked, raw), all_or_none=True)
        body = {
            "model_name": served.plan.model,
            "model_version": str(served.plan.production.version),
            **({"id": asked["id"]} if "id" in asked else {}),
            "outputs": [_output(name, answered.records) for name in wanted],
        }
        return JSONResponse(body, headers=answered.headers())

    return router


def metadata_router(rows: RowsService, admission: Admission) -> APIRouter:
    """What a model takes and gives, to whom may look."""
    tags: list[str | Enum] = ["open inference"]
    router = APIRouter(prefix="/v2", tags=tags, responses=PREDICTION_PROBLEMS, route_class=looking(admission))

    @router.get("/models/{model}/versions/{number}", summary="What a version takes and gives")
    @router.get("/models/{model}", summary="What a model takes and gives")
    async def metadata(model: str, number: str = "") -> dict[str, Any]:
        """Names, types and shapes of the tensors."""
        return _metadata(_served(rows, model, number))

    return router


def tensor_rows(asked: Mapping[str, Any], raw: bytes) -> list[object]:
    """The rows of a request: one tensor a column, in JSON or, in the order of the inputs, in `raw`.

    Raises:
        InvalidRequestError: A tensor is malformed, or they are not of one length.
    """
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(tensor, dict) for tensor in inputs):
        message = "must be a list of tensors: the entity key and as_of, or every feature"
        raise InvalidRequestError(FieldError("inputs", message))
    columns: dict[str, list[object]] = {}
    for tensor in inputs:
        name = str(tensor.get("name", ""))
        if name in columns:
            raise InvalidRequestError(FieldError(name, "is there twice"))
        columns[name], raw = _column(name, tensor, raw)
    if raw:
        raise InvalidRequestError(FieldError("body", f"has {len(raw)} bytes after its last tensor"))
    if len({len(values) for values in columns.values()}) != 1:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise InvalidRequestError(FieldError("inputs", f"must be of one length, not {sizes}"))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(name: str, tensor: Mapping[str, Any], raw: bytes) -> tuple[list[object], bytes]:
    """The values of one tensor, and what of `raw` belongs to the next ones."""
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if datatype != "BYTES" and datatype not in _NUMBERS:
        raise InvalidRequestError(FieldError(f"{name}.datatype", f"must be BYTES or of numbers, not {datatype!r:.40}"))
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) not in (1, 2):
        raise InvalidRequestError(FieldError(f"{name}.shape", "must be [n] or [n, 1]"))
    if shape[1:] not in ([], [1]):
        raise InvalidRequestError(FieldError(f"{name}.shape", f"must be [n] or [n, 1], not {shape}"))
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        values, rest = _flat(tensor.get("data")), raw
    elif isinstance(size, int) and 0 <= size <= len(raw):
        values, rest = _decoded(name, datatype, raw[:size]), raw[size:]
    else:
        raise InvalidRequestError(FieldError(f"{name}.parameters", f"binary_data_size must be at most {len(raw)}"))
    if len(values) != shape[0]:
        raise InvalidRequestError(FieldError(f"{name}.data", f"has {len(values)} values, its shape says {shape[0]}"))
    return values, rest


def _flat(data: object) -> list[object]:
    values = data if isinstance(data, list) else []
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]


def _decoded(name: str, datatype: str, raw: bytes) -> list[object]:
    """Values of a binary tensor: little endian; BYTES have their length, four bytes, before each."""
    if datatype != "BYTES":
        kind = np.dtype(_NUMBERS[datatype])
        if len(raw) % kind.itemsize:
            raise InvalidRequestError(FieldError(name, f"has {len(raw)} bytes, not a multiple of {kind.itemsize}"))
        numbers: list[object] = np.frombuffer(raw, kind).tolist()
        return numbers
    values: list[object] = []
    place = 0
    try:
        while place < len(raw):
            (length,) = struct.unpack_from("<I", raw, place)
            text = raw[place + 4 : place + 4 + length]
            if len(text) != length:
                raise InvalidRequestError(FieldError(name, "ends within a value"))
            values.append(text.decode("utf-8"))
            place += 4 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise InvalidRequestError(FieldError(name, f"is no tensor of BYTES in UTF-8: {error}")) from error
    return values


def _split_body(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request and the bytes of its tensors after it."""
    size = len(body)
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > len(body):
            message = f"must be the length of the JSON, at most {len(body)}, not {header_length!r:.40}"
            raise InvalidRequestError(FieldError(_HEADER_LENGTH, message))
        size = int(header_length)
    asked = json_of(body[:size])
    if not isinstance(asked, dict):
        raise InvalidRequestError(FieldError("body", f"must be an object like {json.dumps(_EXAMPLE)}"))
    return asked, body[size:]


def _wanted(asked: Mapping[str, Any]) -> list[str]:
    """Names of the outputs that the request asks for; all when it names none."""
    outputs = asked.get("outputs")
    if not outputs:
        return list(_OUTPUTS)
    names = [output.get("name") if isinstance(output, dict) else None for output in outputs]
    unknown = [name for name in names if name not in _OUTPUTS]
    if unknown:
        raise InvalidRequestError(FieldError("outputs", f"{unknown[0]!r:.40} is none of {', '.join(_OUTPUTS)}"))
    return [str(name) for name in names]


def _served(rows: RowsService, model: str, number: str) -> ServedModel:
    served = rows.served(ModelName(model))
    production = served.plan.production.version
    if number not in ("", str(production)):
        raise UnknownModelError(
            f"Version '{number:.20}' of '{model}' is not in production here, version {production} is. Ask without a "
            "version for whichever it is."
        )
    return served


def _metadata(served: ServedModel) -> dict[str, Any]:
    inputs = [served.production.contract.entity, "as_of"]
    return {
        "name": served.plan.model,
        "versions": [str(served.plan.production.version)],
        "platform": "onnx",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in inputs],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in _OUTPUTS.items()],
    }


def _output(name: str, records: list[PredictionFields]) -> dict[str, Any]:
    data = [record[name] for record in records]  # type: ignore[literal-required]
    return {"name": name, "datatype": _OUTPUTS[name], "shape": [len(data)], "data": data}
