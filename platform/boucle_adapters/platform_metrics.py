"""What the platform tells Prometheus: the ledger, triggers, replicas and trials of a home, read at each scrape.

The platform's runs are short processes that nobody could scrape; what they did is on record. Names and labels are those
of `platform/docs/observability.md`; no person, entity or run is in a label.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

from boucle.contracts.decision import MOVES, Decision, DecisionKind
from boucle.contracts.ids import ModelName
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.contracts.trigger import Trigger, TriggerOutcome, TriggerRule
from boucle.errors import BoucleError, LedgerError
from boucle.policy.approval import open_requests
from boucle.policy.pins import pin_in_force
from boucle.ports import StateStore
from boucle_adapters.clock import HomeClock
from boucle_adapters.exposition import Family, Kind, Sample, Source
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.monitoring_metrics import of_drift, of_performance
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

_MODEL = ("model",)
INTACT = Family(name="boucle_ledger_intact", text="1 if the chain of the ledger is unbroken", labels=())
DECISIONS = Family(
    name="boucle_decisions", text="Rows of the ledger by what was decided", labels=("model", "kind"), kind=Kind.COUNTER
)
PROMOTIONS = Family(
    name="boucle_promotions",
    text="What became of versions: promoted, rejected, rolled back",
    labels=("model", "outcome"),
    kind=Kind.COUNTER,
)
ROLLBACK_SECONDS = Family(
    name="boucle_rollback_duration_seconds",
    text="From the plan of a rollback until every live replica answered with it",
    labels=_MODEL,
    kind=Kind.HISTOGRAM,
    bounds=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
APPROVAL_SECONDS = Family(
    name="boucle_approval_wait_seconds",
    text="How long requests waited that were approved",
    labels=_MODEL,
    kind=Kind.HISTOGRAM,
    bounds=(60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0),
)
APPROVAL_OPEN = Family(
    name="boucle_approval_open_seconds",
    text="How long a request has waited that nobody has answered",
    labels=("model", "version"),
)
PRODUCTION = Family(name="boucle_production_version", text="What the ledger calls production", labels=_MODEL)
REPLICAS = Family(name="boucle_replicas_live", text="Replicas with a heartbeat of late", labels=_MODEL)
BEHIND = Family(
    name="boucle_replicas_behind", text="Live replicas that serve an older traffic plan than the newest", labels=_MODEL
)
TRIGGERS = Family(
    name="boucle_retraining_triggers",
    text="Looks of the retraining policy: fired, or suppressed with its reason on record",
    labels=("model", "fired"),
    kind=Kind.COUNTER,
)
SUPPRESSED = Family(
    name="boucle_retraining_suppressed",
    text="Looks of the retraining policy that led to no retraining, by the rule that decided",
    labels=("model", "rule"),
    kind=Kind.COUNTER,
)
BUDGET_LEFT = Family(
    name="boucle_retraining_budget_left_runs",
    text="Automatic retrainings that this calendar month (UTC) still allows, by the newest look",
    labels=_MODEL,
)
PINNED = Family(name="boucle_production_pinned", text="1 while a person keeps production where it is", labels=_MODEL)
DISAGREEMENT = Family(
    name="boucle_shadow_disagreement_ratio",
    text="Share of shadowed requests that the version on trial puts on the other side of one half",
    labels=("model", "version"),
)
SHADOW_PAIRS = Family(
    name="boucle_shadow_pairs", text="Requests that both versions of the open trial scored", labels=("model", "version")
)
OUTCOMES = {
    DecisionKind.PROMOTE: "promoted",
    DecisionKind.REJECT: "rejected",
    DecisionKind.ROLLBACK: "rolled_back",
}
_MOVED_OR_SERVED = MOVES | {DecisionKind.SERVED}


@dataclass(kw_only=True)
class PlatformSources:
    """The sources of one home. The state store stays open between scrapes; one that is away is tried again."""

    settings: Settings
    _state: StateStore | None = field(default=None, init=False)

    def __call__(self) -> list[Source]:
        """All of them, for the models that are there now."""
        sources = [Source("ledger", "", self._intact)]
        for model in self._models():
            sources += [
                Source("state_store", model, partial(self._of_state, model)),
                Source("shadow_log", model, partial(self._of_trial, model)),
                Source("drift_report", model, partial(of_drift, self.settings, model)),
                Source("performance", model, partial(of_performance, MonitoringFiles(self.settings.data_dir), model)),
            ]
        return sources

    @property
    def state(self) -> StateStore:
        """The state store; raises StateStoreError while it is away."""
        if self._state is None:
            self._state = SqlStateStore.open(self.settings.state_store_url)
        return self._state

    def _models(self) -> list[ModelName]:
        """Those with versions in the home or with a traffic plan."""
        found = {ModelName(folder.parent.name) for folder in self.settings.data_dir.glob("*/versions")}
        with suppress(BoucleError):  # the ledger says that the store is away
            found.update(self.state.plans())
        return sorted(found)

    def _intact(self) -> list[Sample]:
        try:
            self.state.verify()
        except LedgerError:
            return [Sample(INTACT, (), 0.0)]
        return [Sample(INTACT, (), 1.0)]

    def _of_state(self, model: ModelName) -> list[Sample]:
        decisions = self.state.decisions(model)
        plan = self.state.plan(model)
        samples = [*_counted(model, decisions), *self._waiting(model, decisions), *self._triggers(model)]
        if plan is not None:
            samples += self._replicas(plan)
        production = self.state.production(model)
        return [*samples, Sample(PRODUCTION, (model,), float(production))] if production is not None else samples

    def _waiting(self, model: ModelName, decisions: Sequence[Decision]) -> Iterator[Sample]:
        now = HomeClock(self.settings.clock_file(model)).now()
        for request in open_requests(decisions):
            seconds = (now - request.decision.at).total_seconds()
            yield Sample(APPROVAL_OPEN, (model, str(request.decision.subject_version)), seconds)

    def _triggers(self, model: ModelName) -> Iterator[Sample]:
        triggers = [trigger for _, trigger in self.state.triggers(model)]
        fired = [trigger.outcome is TriggerOutcome.FIRED for trigger in triggers]
        for answer in (True, False):
            yield Sample(TRIGGERS, (model, str(answer).lower()), float(fired.count(answer)))
        held = Counter(t.rule for t in triggers if t.outcome is TriggerOutcome.SUPPRESSED and t.rule is not None)
        for rule in TriggerRule:
            yield Sample(SUPPRESSED, (model, rule), float(held[rule]))
        looked = [trigger for trigger in triggers if trigger.budget is not None]
        if looked:
            now = HomeClock(self.settings.clock_file(model)).now()
            yield Sample(BUDGET_LEFT, (model,), float(_runs_left(looked[-1], now)))

    def _replicas(self, plan: TrafficPlan) -> Iterator[Sample]:
        live = self.state.replicas(max_age_seconds=self.settings.replica_timeout_seconds)
        revisions = [serves.get(plan.model, 0) for serves in live.values()]
        yield Sample(REPLICAS, (plan.model,), float(len(revisions)))
        yield Sample(BEHIND, (plan.model,), float(sum(revision < plan.revision for revision in revisions)))

    def _of_trial(self, model: ModelName) -> list[Sample]:
        """How a version on trial answers beside production, while a trial is open."""
        plan = self.state.plan(model)
        if plan is None or plan.rollout is None or not plan.rollout.is_open:
            return []
        # They bring DuckDB, which most scrapes need not pay.
        from boucle_adapters.log_tables import RolloutLogs
        from boucle_adapters.rollout_facts import shadow_report

        logs = RolloutLogs(
            predictions=SegmentLog(self.settings.log_dir),
            shadows=ShadowSegments(self.settings.shadow_dir),
            feedback=FeedbackSegments(self.settings.feedback_dir),
            labels=(),
        )
        report = shadow_report(logs, self.state.plan_history(model), {})
        if report is None or report.figures.disagreement is None:
            return []
        labels = (model, str(report.challenger))
        return [
            Sample(DISAGREEMENT, labels, report.figures.disagreement),
            Sample(SHADOW_PAIRS, labels, float(report.figures.pairs)),
        ]


def _runs_left(newest: Trigger, now: datetime) -> int:
    """What is left after the newest look, whose budget is that from before it fired; a new month has used nothing."""
    budget = newest.budget
    if budget is None:
        return 0
    if budget.month != f"{now.astimezone(UTC):%Y-%m}":
        return budget.max_runs
    return max(0, budget.runs_left - (newest.outcome is TriggerOutcome.FIRED))


def _counted(model: ModelName, decisions: Sequence[Decision]) -> Iterator[Sample]:
    """What the ledger counts: zeros too, for a counter that appears with its first one shows no increase."""
    kinds = Counter(row.decision.kind for row in decisions)
    for kind in DecisionKind:
        yield Sample(DECISIONS, (model, kind), float(kinds[kind]))
    yield Sample(PINNED, (model,), float(pin_in_force(decisions) is not None))
    for kind, outcome in OUTCOMES.items():
        yield Sample(PROMOTIONS, (model, outcome), float(kinds[kind]))
    for family in (APPROVAL_SECONDS, ROLLBACK_SECONDS):
        yield Sample(family, (model,), None)
    for row in decisions:
        if row.decision.kind is DecisionKind.APPROVE and row.decision.seconds is not None:
            yield Sample(APPROVAL_SECONDS, (model,), row.decision.seconds)
    for move, served in pairwise(row.decision for row in decisions if row.decision.kind in _MOVED_OR_SERVED):
        if move.kind is DecisionKind.ROLLBACK and served.kind is DecisionKind.SERVED and served.seconds is not None:
            yield Sample(ROLLBACK_SECONDS, (model,), served.seconds)
