"""Lists of items ranked for one request: by production, by the arm drawn for the request, or drafted from both.

A list has one origin. Production scores every item; where a version on trial is to rank as well, it has to score every
item too, within its time budget, or else production's order is the whole answer and the record says why.

Lists are kept in the rank log, and only those that nobody was drawn for are in the prediction log as well: there
production answers with the propensity 1, as it does a batch, and outcomes, skew and drift are looked for. The others
are judged by clicks alone, because no propensity of a prediction record would be true of them. A draft gives a version
the items that it likes best itself, so that its loss on them is not its loss; and an arm is drawn for the request, not
for the entity, which would be on both sides of an A/B test. The rank log has what both versions say of every item.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import prometheus_client

from boucle.contracts.ids import EntityKey, ModelName
from boucle.contracts.prediction import Fallback
from boucle.contracts.rank import RankedBy, RankedFields, RankFields
from boucle.contracts.traffic_plan import Arm, Role, Strategy, TrafficPlan
from boucle.contracts.trials import Team
from boucle.errors import BoucleError, BundleError, FeatureLookupError
from boucle.policy.interleaving import first_teams, team_draft
from boucle.policy.traffic import assign, rollout_id
from boucle.ports import RankLog
from boucle_serving.ids import new_id
from boucle_serving.log_keeper import LogWords, RecordKeeper
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, ROUTE
from boucle_serving.predictor import ServedModel
from boucle_serving.problems import FieldError, InvalidRequestError, TooLargeError, UnknownModelError, problem_of
from boucle_serving.rows import SEVERAL
from boucle_serving.service import Asked, Prediction, PredictionService
from boucle_serving.threads import PredictingThreads

MAX_ITEMS = 1_000
_WORDS = LogWords(
    log="rank log",
    unlogged="Lists are ranked without being logged (BOUCLE_WHEN_LOG_FAILS=serve)",
    withheld="Ranked lists are withheld",
    told="The list could not be logged ({error}), so it was withheld. Free the disk or mend its permissions, then ask "
    "again.",
)


class Wanted(NamedTuple):
    """A request to rank: rows as /predict takes one, and how many of them are to be shown at most."""

    items: Sequence[object]
    length: int | None


class Shown(NamedTuple):
    """One item of a list, the arm whose place in the list it has, and what both versions say about it."""

    prediction: Prediction
    arm: Arm
    team: Team | None
    challenger_proba: float | None

    @property
    def proba(self) -> float:
        """What the arm says about it."""
        ours = self.challenger_proba if self.arm.role is Role.CHALLENGER else None
        return self.prediction.record["proba"] if ours is None else ours

    def fields(self) -> RankedFields:
        """What is logged of it."""
        record = self.prediction.record
        return RankedFields(
            prediction_id=record["prediction_id"],
            entity_key=record["entity_key"],
            as_of=record["as_of"],
            team=self.team,
            production_proba=record["proba"],
            challenger_proba=self.challenger_proba,
        )

    def document(self, position: int) -> dict[str, Any]:
        """What a caller learns of it."""
        return {
            **self.prediction.document(),
            "proba": self.proba,
            "position": position,
            "model_version": self.arm.version,
        }


class RankedList(NamedTuple):
    """What came of a request: the items in their order, the best first, and why others have no place, by index."""

    model: ModelName
    rank_id: str
    shown: Sequence[Shown]
    errors: Mapping[int, BoucleError]

    def document(self) -> dict[str, Any]:
        """What a caller learns."""
        return {
            "model": self.model,
            "rank_id": self.rank_id,
            "items": [item.document(position) for position, item in enumerate(self.shown, start=1)],
            "errors": [
                {"index": index, "problem": problem_of(error).document()} for index, error in self.errors.items()
            ],
        }

    def headers(self) -> dict[str, str]:
        """Who answered."""
        answered = {(str(item.arm.version), item.arm.role.value) for item in self.shown}
        version, role = next(iter(answered)) if len(answered) == 1 else (SEVERAL, SEVERAL)
        return {MODEL_VERSION: version, ROUTE: role}

    def counted(self) -> Iterator[tuple[str, str, int]]:
        """Version, role and code of each item."""
        for item in self.shown:
            yield str(item.arm.version), item.arm.role.value, 200
        for error in self.errors.values():
            yield NOBODY, NOBODY, int(problem_of(error).status)


class RankKeeper(RecordKeeper[RankFields]):
    """Keeps the rank log, and counts its records by model."""

    def __init__(
        self, log: RankLog, metrics: ServingMetrics, *, replica: str, sync_seconds: float, serve_unlogged: bool
    ) -> None:
        super().__init__(log, _WORDS, replica=replica, sync_seconds=sync_seconds, serve_unlogged=serve_unlogged)
        names = (("records", "Ranked lists written"), ("dropped", "Ranked lists that could not be"))
        self._written, self._dropped = (
            prometheus_client.Counter(f"boucle_rank_log_{name}_total", text, ("model",), registry=metrics.registry)
            for name, text in names
        )

    def _count(self, records: Sequence[RankFields], *, written: bool) -> None:
        counter = self._written if written else self._dropped
        counter.labels(records[0]["model"]).inc(len(records))


class RankingService:
    """Ranks lists and counts their items."""

    def __init__(
        self,
        service: PredictionService,
        keeper: RankKeeper,
        metrics: ServingMetrics,
        threads: PredictingThreads,
        *,
        replica: str,
    ) -> None:
        self._service = service
        self._keeper = keeper
        self._metrics = metrics
        self._threads = threads
        self._replica = replica

    async def rank(self, model: ModelName, request_id: str, wanted: Wanted) -> RankedList:
        """Rank a list, beside the event loop. An item without an answer is named; the others keep their places.

        Raises:
            InvalidRequestError: There is no item, or none that can be answered.
            BoucleError: One of those that `boucle_serving.problems` maps to a status; nothing was answered.
        """
        started = perf_counter()
        counts: Counter[tuple[str, str, int]] = Counter()
        label = str(model)
        try:
            served = self._service.served(model)
            ranked = await self._threads.run(self._ranked, served, wanted, request_id, started)
            counts.update(ranked.counted())
        except BoucleError as error:
            label = "unknown" if isinstance(error, UnknownModelError) else label
            counts[(NOBODY, NOBODY, int(problem_of(error).status))] += max(len(wanted.items), 1)
            raise
        finally:
            self._metrics.observe_rows(label, counts, perf_counter() - started)
        return ranked

    def _ranked(self, served: ServedModel, wanted: Wanted, request_id: str, started: float) -> RankedList:
        predictions, errors = self._predictions(served, wanted.items, request_id, started)
        plan, (ranks, challenger) = served.plan, who_ranks(served.plan, request_id)
        theirs = None if challenger is None else _scores_of(challenger, served, predictions)
        fallback = theirs if isinstance(theirs, Fallback) else None
        scores = None if isinstance(theirs, Fallback) else theirs
        by = RankedBy.PRODUCTION if fallback else ranks
        drafted = _drafted(by, plan, request_id, [one.record["proba"] for one in predictions], scores)
        shown = [
            Shown(predictions[place], _arm(by, team, plan, challenger), team, scores[place] if scores else None)
            for place, team in drafted[: wanted.length]
        ]
        record = RankFields(
            schema_version=1,
            rank_id=new_id(),
            request_id=request_id,
            at=predictions[0].record["at"],
            model=plan.model,
            plan_revision=plan.revision,
            production=plan.production.version,
            challenger=challenger.version if challenger else None,
            ranked_by=by,
            fallback=fallback,
            items=[item.fields() for item in shown],
            latency_ms=(perf_counter() - started) * 1_000,
            replica=self._replica,
        )
        self._keeper.write(record)
        if challenger is None and plan.production.weight == 100:  # nobody was drawn
            self._service.log(served, [item.prediction for item in shown])
        return RankedList(plan.model, record["rank_id"], shown, errors)

    def _predictions(
        self, served: ServedModel, items: Sequence[object], request_id: str, started: float
    ) -> tuple[list[Prediction], dict[int, BoucleError]]:
        """Production's answers in the order of the items, and the errors of the others by their place.

        Raises:
            InvalidRequestError: There is no item, or none that can be answered.
            TooLargeError: There are too many.
        """
        if not items:
            raise InvalidRequestError(FieldError("items", "has no item"))
        if len(items) > MAX_ITEMS:
            raise TooLargeError(f"The request has {len(items)} items; at most {MAX_ITEMS} are ranked at once.")
        outcomes = self._service.predict(served, [_asked(item, served, request_id, started) for item in items])
        errors = {index: one for index, one in enumerate(outcomes) if isinstance(one, BoucleError)}
        predictions = [one for one in outcomes if isinstance(one, Prediction)]
        if not predictions:
            raise _none_usable(errors)
        return predictions, errors


def who_ranks(plan: TrafficPlan, request_id: str) -> tuple[RankedBy, Arm | None]:
    """Who is to rank the list of a request, and the arm on trial that has a part in it: a whole list for each draw."""
    if plan.strategy is Strategy.INTERLEAVING and plan.rollout is not None and plan.rollout.is_open:
        tried = [arm for arm in plan.challengers if arm.version == plan.rollout.challenger]
        return (RankedBy.BOTH, tried[0]) if tried else (RankedBy.PRODUCTION, None)
    drawn = assign(plan, EntityKey(request_id))
    return (RankedBy.CHALLENGER, drawn) if drawn.role is Role.CHALLENGER else (RankedBy.PRODUCTION, None)


def _scores_of(arm: Arm, served: ServedModel, predictions: Sequence[Prediction]) -> list[float] | Fallback:
    """What a version on trial says about every item, or why it does not: some of its scores are no order."""
    trial = served.trials.get(arm.bundle_digest)
    if trial is None:  # its bundle is not in memory: /readyz says why
        return Fallback.FAILED
    if trial.is_cut():
        return Fallback.CUT
    fallback = Fallback.FAILED
    try:
        given = trial.ask_and_wait([one.found.values(trial.bundle) for one in predictions])
        if given is not None:
            scores = [trial.bundle.checked(score) for score in given]
            trial.note(answered=True)
            return scores
        fallback = Fallback.STALLED
    except (FeatureLookupError, BundleError):
        pass
    trial.note(answered=False)
    return fallback


def _drafted(
    by: RankedBy, plan: TrafficPlan, request_id: str, ours: Sequence[float], theirs: Sequence[float] | None
) -> list[tuple[int, Team | None]]:
    """The places of the items in their order, and which team picked each."""
    if by is RankedBy.BOTH and theirs is not None:
        return team_draft(first_teams(rollout_id(plan), request_id), _order(ours), _order(theirs))
    scores = theirs if by is RankedBy.CHALLENGER and theirs is not None else ours
    return [(place, None) for place in _order(scores)]


def _order(scores: Sequence[float]) -> list[int]:
    """Places by score, the highest first; of equal ones the first that was sent."""
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


def _arm(by: RankedBy, team: Team | None, plan: TrafficPlan, challenger: Arm | None) -> Arm:
    theirs = by is RankedBy.CHALLENGER or team is Team.B
    return challenger if theirs and challenger is not None else plan.production


def _asked(item: object, served: ServedModel, request_id: str, started: float) -> Asked | InvalidRequestError:
    try:
        question = served.production.questions.read(item)
    except InvalidRequestError as error:
        return error
    return Asked(question, served.routes.production, request_id, started)


def _none_usable(errors: Mapping[int, BoucleError]) -> BoucleError:
    """What is said where no item has an answer: each with its reason, or the one that is our fault."""
    ours = [error for error in errors.values() if problem_of(error).status >= 500]
    if ours:
        return ours[0]
    return InvalidRequestError(*(FieldError(f"items[{index}]", str(error)) for index, error in errors.items()))
