"""Predictions, from the parsed request to the logged answer: one, or many at once."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from time import perf_counter
from typing import NamedTuple

from boucle.contracts.ids import Digest, ModelName
from boucle.contracts.prediction import PredictionFields
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.errors import BoucleError, BundleError, FeatureLookupError, NoProductionModelError
from boucle.ports import Clock
from boucle_adapters.online_store import OnlineStore, Snapshot
from boucle_serving.ids import new_id
from boucle_serving.log_keeper import LogKeeper
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import RowsError, UnknownModelError
from boucle_serving.questions import Question
from boucle_serving.router import Routed, route


class PredictionService:
    """Answers predictions from what is in memory: no call leaves the process but the write to the log."""

    def __init__(
        self,
        *,
        predictor: Predictor,
        online: Mapping[ModelName, OnlineStore],
        log: LogKeeper,
        open_clock: Callable[[ModelName], Clock],
        replica: str,
        default_model: ModelName,
        all_models_known: Callable[[], bool],
    ) -> None:
        self.default_model = default_model
        self._predictor = predictor
        self._online = online
        self._log = log
        self._clock = cache(open_clock)
        self._replica = replica
        self._all_models_known = all_models_known

    def knows(self, model: ModelName) -> bool:
        """Whether this is a model that is served here, or should be."""
        return model in self._predictor.served or model == self.default_model or model in self._online

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
    ) -> PredictionFields:
        """Look up, score, log, answer. `started` is `perf_counter()` at the start of the request.

        Raises:
            BoucleError: One of those that `boucle_serving.problems` maps to a status.
        """
        found = self._found(served, routed, question)
        proba = routed.bundle.score(found.values)
        record = self._record(served.plan, found, proba, request_id=request_id, started=started)
        self._log.write(record)
        return record

    def answer_rows(
        self,
        served: ServedModel,
        questions: Sequence[Question | BoucleError],
        *,
        request_id: str,
        started: float,
        all_or_none: bool,
    ) -> list[PredictionFields | BoucleError]:
        """Answer many at once, each by the arm of its entity: a record or an error for each question, in their order.

        With `all_or_none` nothing is answered and nothing logged when one of them cannot be.

        Raises:
            RowsError: `all_or_none`, and some rows have no answer.
            BoucleError: No row can be answered: features or log unavailable.
        """
        self._snapshot(served.plan.model)
        said: dict[int, PredictionFields | BoucleError] = {}
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
        self._log.write(*(one for one in in_order if not isinstance(one, BoucleError)))
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
    ) -> PredictionFields:
        question, routed = found.question, found.routed
        return PredictionFields(
            schema_version=1,
            prediction_id=new_id(),
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
            features=found.values,
            latency_ms=(perf_counter() - started) * 1000,
            replica=self._replica,
        )


class _Found(NamedTuple):
    """A question with its arm and the feature row, in the order of the contract, that answers it."""

    question: Question
    routed: Routed
    values: Sequence[float]
    as_of: datetime


def answer_of(question: Question, record: PredictionFields) -> dict[str, object]:
    """What a caller learns: the question as it was sent, and the answer."""
    return {
        **question.sent,
        "proba": record["proba"],
        "prediction_id": record["prediction_id"],
        "model": record["model"],
        "model_version": record["model_version"],
    }
