"""Follow the traffic plans of the state store, and say in it what this replica really serves."""

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType

from boucle.contracts.ids import ModelName
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.errors import BundleError
from boucle.ports import StateStore
from boucle_adapters.online_store import OnlineStore
from boucle_serving.metrics import ServingMetrics
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import for_callers

_LOGGER = logging.getLogger("boucle.serving")
_RETRY_SECONDS = 1.0
"""A bundle that was refused is read again this often: somebody may have put the right file back."""
_HEARTBEAT_SECONDS = 1.0


class PlanWatch:
    """Two threads: one polls plans and online snapshots, one sends heartbeats (a write may wait for a lock).

    Whatever goes wrong leaves what is served as it is, is kept in `problems()` and tried again. `looked` is set once
    the first look is over, however it went.
    """

    def __init__(
        self,
        *,
        open_state: Callable[[], StateStore],
        open_online: Callable[[ModelName], OnlineStore],
        predictor: Predictor,
        metrics: ServingMetrics,
        poll_seconds: float,
        replica: str,
        default_model: ModelName,
    ) -> None:
        self.online: dict[ModelName, OnlineStore] = {}
        self.wanted: Mapping[ModelName, TrafficPlan] = MappingProxyType({})
        self.plans_known = False
        self._open_state = open_state
        self._open_online = open_online
        self._predictor = predictor
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._replica = replica
        self._address = ""
        self._default_model = default_model
        self._state: StateStore | None = None
        self._store_problem: str | None = "The state store has not been read yet."
        self._store_failure: str | None = None
        self._refused: dict[ModelName, tuple[TrafficPlan, float, str]] = {}
        self.looked = threading.Event()
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._beat = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, address: str) -> None:
        """Start both threads; `address` is where this replica answers."""
        self._address = address
        for target in (self._poll_forever, self._beat_forever):
            thread = threading.Thread(target=target, name=f"boucle-{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop both threads and take this replica off the list of live ones."""
        self._stop.set()
        self._beat.set()
        for thread in self._threads:
            thread.join(timeout=5)
        self._send_heartbeat({})

    def poll(self) -> None:
        """Look once: newer plans, newer snapshots. Whoever looks at the same time waits: a plan is applied once."""
        with self._looking:
            self._read_plans()
            for model in self.wanted:
                if model not in self.online:
                    self.online[model] = self._open_online(model)
                self.online[model].refresh()
            for plan in self.wanted.values():
                self._follow(plan)

    def problems(self) -> tuple[str, ...]:
        """What is not as it should be, a sentence each; none of it stops what is served from answering."""
        store = [f"{self._store_problem} The last plans known stay in force."] if self._store_problem else []
        refused = [sentence for _, _, sentence in list(self._refused.values())]
        served = self._predictor.served
        cold = [
            sentence for model in served.values() for sentence in model.cold if model.plan.model not in self._refused
        ]
        gone = [
            f"The state store has no plan of '{name}' any more; the last stays." for name in served.keys() - self.wanted
        ]
        snapshots = [online.problem for online in list(self.online.values()) if online.problem]
        return (*store, *refused, *cold, *gone, *snapshots)

    def revisions(self) -> Mapping[ModelName, int]:
        """What is really served: the revision by model, 0 where a model is expected but nothing is served yet."""
        expected = dict.fromkeys(self.wanted or (self._default_model,), 0)
        return {**expected, **{name: served.plan.revision for name, served in self._predictor.served.items()}}

    def _poll_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll()
            except Exception:
                _LOGGER.exception("following the traffic plan failed; what is served stays")
            self.looked.set()
            self._stop.wait(self._poll_seconds)

    def _beat_forever(self) -> None:
        while not self._stop.is_set():
            self._beat.clear()
            self._send_heartbeat(self.revisions())
            self._beat.wait(_HEARTBEAT_SECONDS)

    def _send_heartbeat(self, revisions: Mapping[ModelName, int]) -> None:
        state = self._state
        if state is None:
            return
        try:
            state.heartbeat(self._replica, revisions, self._address)
        except Exception as error:  # noqa: BLE001 - any driver's error: the store is away, and the poll reports it
            _LOGGER.warning("heartbeat not sent: %s", error)

    def _read_plans(self) -> None:
        try:
            if self._state is None:
                self._state = self._open_state()
                self._beat.set()
            self.wanted = MappingProxyType(dict(self._state.plans()))
        except Exception as error:  # noqa: BLE001 - any driver's error means the same: keep what is served, try again
            self._note_store(error)
            return
        self.plans_known = True
        self._note_store(None)
        for model, plan in self.wanted.items():
            self._metrics.plan_wanted.labels(model).set(plan.revision)

    def _note_store(self, error: Exception | None) -> None:
        cause = "" if error is None else f"{type(error).__name__}: {error}"
        if cause != self._store_failure:
            _LOGGER.info("state store: %s", cause or "followed")
        self._store_failure = cause
        self._store_problem = None if error is None else for_callers(error)
        self._metrics.state_store_up.set(error is None)

    def _follow(self, plan: TrafficPlan) -> None:
        before = self._predictor.served.get(plan.model)
        if before is not None and before.plan == plan and not before.cold:
            self._refused.pop(plan.model, None)
            return
        refused = self._refused.get(plan.model)
        if refused is not None and refused[0] == plan and monotonic() < refused[1]:
            return
        try:
            served = self._predictor.apply(plan)
        except BundleError as error:
            self._refuse(plan, f"Revision {plan.revision} of '{plan.model}' is not served: {error}")
            return
        self._applied(before, served)

    def _refuse(self, plan: TrafficPlan, sentence: str) -> None:
        earlier = self._refused.get(plan.model)
        if earlier is None or earlier[2] != sentence:  # it is tried again every second
            _LOGGER.warning("%s", sentence, extra={"model": plan.model, "plan_revision": plan.revision})
        self._metrics.load_failures.labels(plan.model).inc()
        self._refused[plan.model] = (plan, monotonic() + _RETRY_SECONDS, sentence)

    def _applied(self, before: ServedModel | None, served: ServedModel) -> None:
        plan = served.plan
        self._refused.pop(plan.model, None)
        for arm in before.plan.arms if before else ():
            if arm.version not in {other.version for other in plan.arms}:
                self._metrics.weight.remove(plan.model, str(arm.version))
        for arm in plan.arms:
            self._metrics.weight.labels(plan.model, str(arm.version)).set(arm.weight)
        self._metrics.plan_revision.labels(plan.model).set(plan.revision)
        arms = ", ".join(f"version {arm.version} ({arm.role}, {arm.weight:g} %)" for arm in plan.arms)
        about = {"model": plan.model, "version": plan.production.version, "plan_revision": plan.revision}
        _LOGGER.info("revision %s is served: %s", plan.revision, arms, extra=about)
        self._beat.set()
        if served.cold:
            self._refuse(plan, served.cold[0])
