"""Predictions, from checked questions to logged records: one, or many at once."""

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
from boucle_adapters.online_store import OnlineStore
from boucle_serving.ids import new_id
from boucle_serving.log_keeper import LogKeeper
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import InvalidRequestError, UnknownModelError
from boucle_serving.questions import FeatureRow, Question
from boucle_serving.router import Routed


class Asked(NamedTuple):
    """A question of a request, and who answers it. `started` is `perf_counter()` at the start of the request."""

    question: Question | FeatureRow
    routed: Routed
    request_id: str
    started: float


class Prediction(NamedTuple):
    """A question and its answer as it is logged."""

    question: Question | FeatureRow
    record: PredictionFields

    def document(self) -> dict[str, object]:
        """What a caller learns: the question as it was sent, and the answer."""
        record = self.record
        return {
            **self.question.sent,
            "proba": record["proba"],
            "prediction_id": record["prediction_id"],
            "model": record["model"],
            "model_version": record["model_version"],
        }


class _Found(NamedTuple):
    """A question with the feature row, in the order of the contract, that answers it."""

    number: int
    asked: Asked
    values: Sequence[float]
    as_of: datetime | None


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

    def serves(self, model: ModelName) -> bool:
        """Whether this model can be asked."""
        return model in self._predictor.served

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

    def predict(
        self, served: ServedModel, asked: Sequence[Asked | InvalidRequestError]
    ) -> list[Prediction | BoucleError]:
        """Look up, then score what one arm answers at once: a prediction or an error for each, in their order.

        Nothing of it may leave before `log` has taken the records.
        """
        outcomes: dict[int, Prediction | BoucleError] = {}
        by_bundle: dict[Digest, list[_Found]] = {}
        for number, one in enumerate(asked):
            if isinstance(one, InvalidRequestError):
                outcomes[number] = one
                continue
            try:
                found = self._found(number, one, served)
            except FeatureLookupError as error:
                outcomes[number] = error
            else:
                by_bundle.setdefault(one.routed.answering.bundle_digest, []).append(found)
        now = self._clock(served.plan.model).now()
        for group in by_bundle.values():
            bundle = group[0].asked.routed.bundle
            for found, score in zip(group, bundle.scores([found.values for found in group]), strict=True):
                try:
                    outcomes[found.number] = self._prediction(served.plan, found, bundle.checked(score), now)
                except BundleError as error:
                    outcomes[found.number] = error
        return [outcomes[number] for number in range(len(asked))]

    def log(self, outcomes: Sequence[Prediction | BoucleError]) -> None:
        """Write the predictions among them to the log. Raises LogUnavailableError when they must not leave."""
        self._log.write(*(outcome.record for outcome in outcomes if isinstance(outcome, Prediction)))

    def _found(self, number: int, asked: Asked, served: ServedModel) -> _Found:
        question, bundle = asked.question, asked.routed.bundle
        if isinstance(question, FeatureRow):
            values = bundle.in_order(question.values, served.production.contract.feature_names)
            return _Found(number, asked, values, None)
        online = self._online.get(served.plan.model)
        if online is None:
            raise FeatureLookupError(
                f"There is no online snapshot of '{served.plan.model}'. Materialise `online_features`."
            )
        snapshot = online.snapshot
        row = snapshot.look_up(question.entity_key, question.as_of, max_age_days=bundle.contract.max_feature_age_days)
        return _Found(number, asked, bundle.in_order(row.values, snapshot.manifest.feature_names), row.as_of)

    def _prediction(self, plan: TrafficPlan, found: _Found, proba: float, now: datetime) -> Prediction:
        question, routed, request_id, started = found.asked
        record = PredictionFields(
            schema_version=1,
            prediction_id=new_id(),
            request_id=request_id,
            at=now,
            model=plan.model,
            entity_key=question.entity_key,
            as_of=question.as_of or now,
            features_as_of=found.as_of,
            model_version=routed.answering.version,
            bundle_digest=routed.answering.bundle_digest,
            plan_revision=plan.revision,
            assigned_role=routed.assigned.role.value,
            answering_role=routed.answering.role.value,
            propensity=1.0 if question.entity_key is None else routed.assigned.weight / 100,
            proba=proba,
            features=found.values,
            latency_ms=(perf_counter() - started) * 1000,
            replica=self._replica,
        )
        return Prediction(question, record)
