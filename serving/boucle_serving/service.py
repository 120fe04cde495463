"""Predictions, from the parsed request to the logged answer: one, or many at once."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from secrets import token_hex
from time import perf_counter

from boucle.contracts.bundle import BundleContract
from boucle.contracts.ids import Digest, EntityKey, ModelName
from boucle.contracts.prediction import PredictionRecord
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.errors import BoucleError, BundleError, FeatureLookupError, NoProductionModelError
from boucle.ports import Clock, PredictionLog
from boucle_adapters.online_store import OnlineStore, Snapshot
from boucle_serving.metrics import ServingMetrics
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import (
    FieldError,
    InvalidRequestError,
    LogUnavailableError,
    RowsError,
    UnknownModelError,
)
from boucle_serving.router import Routed, route


@dataclass(frozen=True)
class Question:
    """A checked request: about whom, as of when (UTC), and both as they were sent."""

    entity_key: EntityKey
    as_of: datetime
    sent: Mapping[str, object]


class PredictionService:
    """Answers predictions from what is in memory: no call leaves the process but the write to the log."""

    def __init__(
        self,
        *,
        predictor: Predictor,
        online: Mapping[ModelName, OnlineStore],
        log: PredictionLog,
        open_clock: Callable[[ModelName], Clock],
        metrics: ServingMetrics,
        replica: str,
        default_model: ModelName,
        all_models_known: Callable[[], bool],
    ) -> None:
        self.default_model = default_model
        self._predictor = predictor
        self._online = online
        self._log = log
        self._clock = cache(open_clock)
        self._metrics = metrics
        self._replica = replica
        self._all_models_known = all_models_known

    def served(self, model: ModelName) -> ServedModel:
        """What is served of this model.

        Raises:
            NoProductionModelError: Nothing of it is in production, or its first bundle could not be loaded.
            UnknownModelError: The plans are known and none is of this model.
        """
        served = self._predictor.served.get(model)
        if served is not None:
            return served
        if model != self.default_model and model not in self._online and self._all_models_known():
            raise UnknownModelError(
                f"No traffic plan is of model '{model}'; served here: {', '.join(self._predictor.served) or 'none'}. "
                "A new model is served once its `production_alias` and `traffic_plan` are materialised."
            )
        raise NoProductionModelError(
            f"No version of '{model}' is in production here yet. Materialise `production_alias` and `traffic_plan` of "
            f"'{model}', or run `boucle retrain {model}`. If that is done, GET /readyz says what is missing."
        )

    def answer(
        self, served: ServedModel, routed: Routed, question: Question, *, request_id: str, started: float
    ) -> PredictionRecord:
        """Look up, score, log, answer. `started` is `perf_counter()` at the start of the request.

        Raises:
            BoucleError: One of those that `boucle_serving.problems` maps to a status.
        """
        found = self._found(served, routed, question)
        proba = routed.bundle.score(found.values)
        record = self._record(served.plan, found, proba, request_id=request_id, started=started)
        self._write(record)
        return record

    def answer_rows(
        self,
        served: ServedModel,
        questions: Sequence[Question | BoucleError],
        *,
        request_id: str,
        started: float,
        all_or_none: bool,
    ) -> list[PredictionRecord | BoucleError]:
        """Answer many at once, each by the arm of its entity: a record or an error for each question, in their order.

        With `all_or_none` nothing is answered and nothing logged when one of them cannot be.

        Raises:
            RowsError: `all_or_none`, and some rows have no answer.
            BoucleError: No row can be answered: features or log unavailable.
        """
        self._snapshot(served.plan.model)
        said: dict[int, PredictionRecord | BoucleError] = {}
        by_bundle: dict[Digest, list[tuple[int, _Found]]] = {}
        for number, question in enumerate(questions):
            found = question if isinstance(question, BoucleError) else self._found_or_error(served, question)
            if isinstance(found, BoucleError):
                said[number] = found
            else:
                by_bundle.setdefault(found.routed.answering.bundle_digest, []).append((number, found))
        for group in by_bundle.values():
            bundle = group[0][1].routed.bundle
            scores = bundle.scores([found.values for _, found in group])
            for (number, found), score in zip(group, scores, strict=True):
                try:
                    proba = bundle.checked(score)
                except BundleError as error:
                    said[number] = error
                else:
                    said[number] = self._record(served.plan, found, proba, request_id=request_id, started=started)
        in_order = [said[number] for number in range(len(questions))]
        if all_or_none and (wrong := {n: one for n, one in enumerate(in_order) if isinstance(one, BoucleError)}):
            raise RowsError(wrong)
        self._write(*(one for one in in_order if isinstance(one, PredictionRecord)))
        return in_order

    def _snapshot(self, model: ModelName) -> Snapshot:
        online = self._online.get(model)
        if online is None:
            raise FeatureLookupError(f"There is no online snapshot of '{model}'. Materialise `online_features`.")
        return online.snapshot

    def _found(self, served: ServedModel, routed: Routed, question: Question) -> "_Found":
        snapshot = self._snapshot(served.plan.model)
        max_age = routed.bundle.contract.max_feature_age_days
        row = snapshot.look_up(question.entity_key, question.as_of, max_age_days=max_age)
        values = routed.bundle.in_order(row.values, snapshot.manifest.feature_names)
        return _Found(question, routed, values, row.as_of)

    def _found_or_error(self, served: ServedModel, question: Question) -> "_Found | FeatureLookupError":
        try:
            return self._found(served, route(served, question.entity_key), question)
        except FeatureLookupError as error:
            return error

    def _record(
        self, plan: TrafficPlan, found: "_Found", proba: float, *, request_id: str, started: float
    ) -> PredictionRecord:
        question, routed = found.question, found.routed
        return PredictionRecord(
            prediction_id=token_hex(16),
            request_id=request_id,
            at=self._clock(plan.model).now(),
            model=plan.model,
            entity_key=question.entity_key,
            as_of=question.as_of,
            features_as_of=found.as_of,
            model_version=routed.answering.version,
            bundle_digest=routed.answering.bundle_digest,
            plan_revision=plan.revision,
            assigned_role=routed.assigned.role.value,
            answering_role=routed.answering.role.value,
            propensity=routed.assigned.weight / 100,
            proba=proba,
            features=tuple(None if math.isnan(value) else value for value in found.values),
            latency_ms=(perf_counter() - started) * 1000,
            replica=self._replica,
        )

    def _write(self, *records: PredictionRecord) -> None:
        if not records:
            return
        model = records[0].model
        try:
            self._log.append(*records)
        except OSError as error:
            self._metrics.dropped.labels(model).inc(len(records))
            raise LogUnavailableError(
                f"What was computed could not be logged ({error}), so it was withheld. Free the disk or mend its "
                "permissions, then ask again."
            ) from error
        self._metrics.logged.labels(model).inc(len(records))


@dataclass(frozen=True)
class _Found:
    """A question with its arm and the feature row, in the order of the contract, that answers it."""

    question: Question
    routed: Routed
    values: Sequence[float]
    as_of: datetime


def answer_of(question: Question, record: PredictionRecord) -> dict[str, object]:
    """What a caller learns: the question as it was sent, and the answer."""
    return {
        **question.sent,
        "proba": record.proba,
        "prediction_id": record.prediction_id,
        "model": record.model,
        "model_version": record.model_version,
    }


def parse_question(payload: object, contract: BundleContract) -> Question:
    """Check a request of the form `{<entity>: key, "as_of": moment}` against the contract of the bundle in production.

    Raises:
        InvalidRequestError: A field is missing, unknown or malformed; all of them are named at once.
    """
    entity = contract.entity
    if not isinstance(payload, dict):
        raise InvalidRequestError(
            FieldError("body", f'must be a JSON object like {{"{entity}": "4", "as_of": "1997-10-01"}}')
        )
    errors = [
        FieldError(f"{name!r:.80}".strip("'"), f"is not known; the fields are {entity} and as_of")
        for name in payload
        if name not in (entity, "as_of")
    ]
    key = _entity_key(payload, contract, errors)
    as_of = _as_of(payload, errors)
    if errors or as_of is None:
        raise InvalidRequestError(*errors)
    return Question(EntityKey(key), as_of, {entity: payload[entity], "as_of": payload["as_of"]})


def _entity_key(payload: Mapping[str, object], contract: BundleContract, errors: list[FieldError]) -> str:
    entity, key = contract.entity, contract.key
    value = payload.get(entity)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if entity not in payload:
        errors.append(FieldError(entity, "is required"))
    elif not isinstance(value, str):
        errors.append(FieldError(entity, f"must be a string or a whole number, not {value!r:.80}"))
    elif not key.min_length <= len(value) <= key.max_length or not value.isprintable():
        errors.append(FieldError(entity, f"must have {key.min_length} to {key.max_length} printable characters"))
    elif not re.match(key.pattern, value):
        errors.append(FieldError(entity, f"must match {key.pattern} ({key.description}), not {value!r:.80}"))
    else:
        return value
    return ""


def _as_of(payload: Mapping[str, object], errors: list[FieldError]) -> datetime | None:
    value = payload.get("as_of")
    if "as_of" not in payload:
        errors.append(FieldError("as_of", "is required"))
        return None
    try:
        if not isinstance(value, str):
            raise TypeError
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        message = f"must be an ISO 8601 date or date-time (UTC unless it says otherwise), not {value!r:.80}"
        errors.append(FieldError("as_of", message))
        return None
