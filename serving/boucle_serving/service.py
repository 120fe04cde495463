"""Predictions, from checked questions to logged records: one, or many at once."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from datetime import datetime, timedelta
from functools import cache
from time import perf_counter
from typing import NamedTuple

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import Fallback, PredictionFields
from boucle.errors import BoucleError, BundleError, FeatureLookupError, NoProductionModelError
from boucle.ports import Clock
from boucle_adapters.online_store import OnlineStore
from boucle_serving.bundles import LoadedBundle
from boucle_serving.ids import new_id
from boucle_serving.log_keeper import LogKeeper
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import InvalidRequestError, UnknownModelError
from boucle_serving.questions import FeatureRow, Question
from boucle_serving.router import Routed
from boucle_serving.trial import Scores, Shadow, Trial

_LOGGER = logging.getLogger("boucle.serving")
_DAY = timedelta(days=1)


class Asked(NamedTuple):
    """A question of a request, and who answers it. `started` is `perf_counter()` at the start of the request."""

    question: Question | FeatureRow
    routed: Routed
    request_id: str
    started: float


class Found(NamedTuple):
    """A question with the feature row that answers it, and what its columns are. `number` is its place in the turn."""

    number: int
    asked: Asked
    row: Sequence[float]
    names: tuple[str, ...]
    as_of: datetime | None

    def values(self, bundle: LoadedBundle) -> Sequence[float]:
        """What a model needs of the row, in its order. Raises FeatureLookupError when something is missing."""
        return bundle.in_order(self.row, self.names)


class Prediction(NamedTuple):
    """A question and its answer as it is logged."""

    found: Found
    record: PredictionFields

    def document(self) -> dict[str, object]:
        """What a caller learns: the question as it was sent, and the answer."""
        record = self.record
        return {
            **self.found.asked.question.sent,
            "proba": record["proba"],
            "prediction_id": record["prediction_id"],
            "model": record["model"],
            "model_version": record["model_version"],
        }


class Held(NamedTuple):
    """Rows that a version on trial was asked for; what comes of them is for `PredictionService.finish`."""

    trial: Trial
    found: Sequence[Found]
    answer: "Future[Scores | None]"


class Begun(NamedTuple):
    """What is answered already, by number, and what versions on trial are to answer."""

    outcomes: dict[int, Prediction | BoucleError]
    held: Sequence[Held]


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

    def begin(self, served: ServedModel, asked: Sequence[Asked | InvalidRequestError]) -> Begun:
        """Look up, then score what production answers at once. Nothing may leave before `log` has taken it."""
        outcomes: dict[int, Prediction | BoucleError] = {}
        held = []
        for group in self._by_arm(served, asked, outcomes):
            trial = group[0].asked.routed.trial
            if trial is None:
                outcomes.update(self._answered(group))
            elif (rows := _rows_for(trial, group)) is None:
                outcomes.update(self._finished(served, trial, group, [None] * len(group)))
            elif trial.is_quick:
                outcomes.update(self._finished(served, trial, group, trial.ask_now(rows)))
            else:
                held.append(Held(trial, group, trial.ask(rows)))
        return Begun(outcomes, held)

    def _by_arm(
        self,
        served: ServedModel,
        asked: Sequence[Asked | InvalidRequestError],
        outcomes: dict[int, Prediction | BoucleError],
    ) -> Iterable[Sequence[Found]]:
        """The questions with their features, those of one arm together; what has none is an outcome already."""
        groups: dict[int, list[Found]] = {}
        for number, one in enumerate(asked):
            if isinstance(one, InvalidRequestError):
                outcomes[number] = one
                continue
            try:
                found = self._found(number, one, served)
            except FeatureLookupError as error:
                outcomes[number] = error
            else:
                groups.setdefault(id(found.asked.routed), []).append(found)
        return groups.values()

    def finish(self, served: ServedModel, held: Held, scores: Scores | None) -> dict[int, Prediction | BoucleError]:
        """What comes of rows that a version on trial was asked for; production answers those it has no answer for.

        Args:
            served: What they were asked of.
            held: As `begin` gave it.
            scores: Its answers; None when they did not come in time.
        """
        return self._finished(served, held.trial, held.found, scores)

    def _finished(
        self, served: ServedModel, trial: Trial, group: Sequence[Found], scores: Scores | None
    ) -> dict[int, Prediction | BoucleError]:
        outcomes = self._scored(group, trial.bundle, scores) if scores else {}
        left = [found for found in group if not isinstance(outcomes.get(found.number), Prediction)]
        if not group[0].asked.routed.pinned:
            trial.note(answered=not left)
        if left:
            why = Fallback.FAILED if scores else Fallback.STALLED
            outcomes.update(self._answered([_given_to_production(found, served, why) for found in left]))
        return outcomes

    def predict(
        self, served: ServedModel, asked: Sequence[Asked | InvalidRequestError]
    ) -> list[Prediction | BoucleError]:
        """A prediction or an error for each, in their order; waits for versions on trial, within their budget.

        Nothing of it may leave before `log` has taken the records.
        """
        outcomes, held = self.begin(served, asked)
        for one in held:
            wait([one.answer], one.trial.budget_seconds)
            in_time = not one.answer.cancel() and one.answer.done()
            outcomes.update(self.finish(served, one, one.answer.result() if in_time else None))
        return [outcomes[number] for number in range(len(asked))]

    def log(self, served: ServedModel, outcomes: Iterable[Prediction | BoucleError]) -> None:
        """Write the predictions among them to the log, then let other arms score what the plan has them shadow.

        Raises:
            LogUnavailableError: They must not leave.
        """
        predictions = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
        self._log.write(*[prediction.record for prediction in predictions])
        if served.plan.shadow_share:
            try:
                self._shadow(served, predictions)
            except Exception:  # the answers are logged and must leave
                _LOGGER.exception("shadows were not scored")

    def _shadow(self, served: ServedModel, predictions: Sequence[Prediction]) -> None:
        by_trial: dict[Trial, list[Shadow]] = {}
        for prediction in predictions:
            for trial, shadow in _shadows(prediction, served):
                by_trial.setdefault(trial, []).append(shadow)
        for trial, shadows in by_trial.items():
            trial.shadow(shadows)

    def _found(self, number: int, asked: Asked, served: ServedModel) -> Found:
        question = asked.question
        if isinstance(question, FeatureRow):
            return Found(number, asked, question.values, served.production.contract.feature_names, None)
        online = self._online.get(served.plan.model)
        if online is None:
            raise FeatureLookupError(
                f"There is no online snapshot of '{served.plan.model}'. Materialise `online_features`."
            )
        snapshot = online.snapshot
        # By production's age for all: what callers get must not depend on who is drawn.
        oldest = served.production.contract.max_feature_age_days
        row = snapshot.look_up(question.entity_key, question.as_of, max_age_days=oldest)
        found = Found(number, asked, row.values, snapshot.manifest.feature_names, row.as_of)
        strictest = asked.routed.strictest_age_days
        if strictest is None or (question.as_of - row.as_of) / _DAY < strictest:
            return found
        return _given_to_production(found, served, Fallback.FAILED)

    def _answered(self, group: Sequence[Found]) -> dict[int, Prediction | BoucleError]:
        """Score rows of one arm here and now."""
        bundle = group[0].asked.routed.bundle
        outcomes: dict[int, Prediction | BoucleError] = {}
        rows = []
        for found in group:
            try:
                rows.append((found, found.values(bundle)))
            except FeatureLookupError as error:
                outcomes[found.number] = error
        if rows:
            scores = bundle.scores([values for _, values in rows])
            outcomes.update(self._scored([found for found, _ in rows], bundle, scores))
        return outcomes

    def _scored(
        self, group: Sequence[Found], bundle: LoadedBundle, scores: Scores
    ) -> dict[int, Prediction | BoucleError]:
        outcomes: dict[int, Prediction | BoucleError] = {}
        now = self._clock(group[0].asked.routed.plan.model).now()
        for found, score in zip(group, scores, strict=True):
            try:
                outcomes[found.number] = self._prediction(found, bundle.checked(score), now)
            except BundleError as error:
                outcomes[found.number] = error
        return outcomes

    def _prediction(self, found: Found, proba: float, now: datetime) -> Prediction:
        question, routed, request_id, started = found.asked
        plan, answering = routed.plan, routed.answering
        record = PredictionFields(
            schema_version=1,
            prediction_id=new_id(),
            request_id=request_id,
            at=now,
            model=plan.model,
            entity_key=question.entity_key,
            as_of=question.as_of or now,
            features_as_of=found.as_of,
            model_version=answering.version,
            bundle_digest=answering.bundle_digest,
            plan_revision=plan.revision,
            assigned_role=routed.assigned_role,
            answering_role=routed.answered_by[1],
            propensity=1.0 if question.entity_key is None else routed.propensity,
            proba=proba,
            features=found.values(routed.bundle),
            latency_ms=(perf_counter() - started) * 1000,
            replica=self._replica,
            fallback=routed.fallback,
            pinned=routed.pinned,
        )
        return Prediction(found, record)


def _rows_for(trial: Trial, group: Sequence[Found]) -> Sequence[Sequence[float]] | None:
    """What to ask a version on trial; None where the rows lack what it needs: then it has no answer for them."""
    try:
        return [found.values(trial.bundle) for found in group]
    except FeatureLookupError:
        return None


def _given_to_production(found: Found, served: ServedModel, why: Fallback) -> Found:
    asked = found.asked
    return found._replace(asked=asked._replace(routed=served.routes.fallback(asked.routed, why)))


def _shadows(prediction: Prediction, served: ServedModel) -> list[tuple[Trial, Shadow]]:
    """What other arms are to make of an answered request."""
    found, record = prediction
    question, routed = found.asked.question, found.asked.routed
    wanted = []
    for arm, trial in served.routes.shadows(routed, question.entity_key):
        bundle = served.bundles[arm.bundle_digest]
        try:
            values: Sequence[float] | None = found.values(bundle)
        except FeatureLookupError:  # it needs what nobody has: it fails, and no caller sees it
            values = None
        wanted.append((trial, Shadow(record["prediction_id"], record["at"], served.plan, arm, bundle, values)))
    return wanted
