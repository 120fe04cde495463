"""POST /invocations: the scoring protocol of MLflow's server and of SageMaker, for the default model.

Rows have the entity key and `as_of`, as /predict asks for them, or every feature of the contract by its name. The four
forms of the body are those of MLflow:
https://mlflow.org/docs/latest/genai/serving/ (`dataframe_split`, `dataframe_records`, `instances`, `inputs`).
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from boucle_serving.body import json_of
from boucle_serving.documented import PREDICTION_PROBLEMS
from boucle_serving.problems import FieldError, InvalidRequestError
from boucle_serving.rows import RowsService

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_EXAMPLE = {"dataframe_split": {"columns": ["user_id", "as_of"], "data": [["4", "1997-10-01"]]}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
    }
}


def mlflow_router(rows: RowsService) -> APIRouter:
    """What MLflow's scoring client and SageMaker's gateway ask."""
    router = APIRouter(tags=["mlflow"], responses=PREDICTION_PROBLEMS)

    @router.post("/invocations", summary="Predict with the default model, by MLflow's protocol", openapi_extra=_BODY)
    async def invocations(request: Request) -> Response:
        """All rows are answered, or none is."""
        async with rows.body(request) as content:
            answered = await rows.answer(request, rows.default_model, rows_of(json_of(content)), all_or_none=True)
        body = {
            "predictions": [record["proba"] for record in answered.records],
            "prediction_ids": [record["prediction_id"] for record in answered.records],
        }
        return JSONResponse(body, headers=answered.headers())

    return router


def rows_of(payload: object) -> list[object]:
    """The rows of one of the four forms, each an object.

    Raises:
        InvalidRequestError: It is none of the forms, or rows and columns do not fit each other.
    """
    if not isinstance(payload, dict):
        raise InvalidRequestError(FieldError("body", f"must be an object with one of {', '.join(_FORMS)}"))
    forms = [name for name in payload if name in _FORMS]
    unknown = [name for name in payload if name not in (*_FORMS, "params")]
    if len(forms) != 1 or unknown or payload.get("params"):
        raise InvalidRequestError(FieldError("body", f"must have one of {', '.join(_FORMS)}, and no params"))
    form, value = forms[0], payload[forms[0]]
    if form == "dataframe_split":
        return _split(value)
    if isinstance(value, dict) and form in ("inputs", "instances"):
        return _columns(value, form)
    if not isinstance(value, list):
        raise InvalidRequestError(FieldError(form, "must be a list of rows, each an object"))
    return value


def _split(value: object) -> list[object]:
    columns = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not isinstance(data, list):
        raise InvalidRequestError(FieldError("dataframe_split", "must have `columns` and `data`, each a list"))
    names = [str(name) for name in columns]
    if len(set(names)) != len(names):
        raise InvalidRequestError(FieldError("dataframe_split", "has a column twice"))
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            message = f"must be a list of {len(names)} values, one for each column"
            raise InvalidRequestError(FieldError(f"dataframe_split.data[{number}]", message))
    return [dict(zip(names, row, strict=True)) for row in data]


def _columns(value: dict[str, object], form: str) -> list[object]:
    lengths = {len(values) if isinstance(values, list) else -1 for values in value.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise InvalidRequestError(FieldError(form, "must have a list for each column, all of one length"))
    lists = [values for values in value.values() if isinstance(values, list)]
    return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
