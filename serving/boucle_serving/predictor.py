"""The models that a replica serves: plans applied, swapped without a request noticing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from boucle.contracts.ids import Digest, ModelName
from boucle.contracts.traffic_plan import Arm, Role, TrafficPlan
from boucle.errors import BundleError
from boucle.ports import BundleStore
from boucle_serving.bundles import STAYS, LoadedBundle, load_bundle
from boucle_serving.router import Routes
from boucle_serving.trial import Trial

_CLOSING_SECONDS = 5.0


@dataclass(frozen=True)
class ServedModel:
    """One revision of a plan with its models in memory. A request takes one and keeps it until it is answered."""

    plan: TrafficPlan
    bundles: Mapping[Digest, LoadedBundle]
    trials: Mapping[Digest, Trial]
    cold: tuple[str, ...] = ()
    """Why an arm that answers nobody is not warm, a sentence each."""

    @cached_property
    def production(self) -> LoadedBundle:
        """The bundle of the production arm."""
        return self.bundles[self.plan.production.bundle_digest]

    @cached_property
    def routes(self) -> Routes:
        """Who answers whom."""
        return Routes(self.plan, self.bundles, self.trials)


class Predictor:
    """The models that this replica serves. One thread applies plans; any thread may read."""

    def __init__(self, store: BundleStore, open_trial: Callable[[LoadedBundle], Trial]) -> None:
        self._store = store
        self._open_trial = open_trial
        self._served: Mapping[ModelName, ServedModel] = MappingProxyType({})

    @property
    def served(self) -> Mapping[ModelName, ServedModel]:
        """What is served now, by model; a value that never changes."""
        return self._served

    def apply(self, plan: TrafficPlan) -> ServedModel:
        """Load what the plan needs, then serve it: the switch is one assignment, requests under way finish as begun.

        Raises:
            BundleError: An answering arm cannot be loaded; what was served before is still served.
        """
        before = self._served.get(plan.model)
        warm = before.bundles if before else {}
        bundles: dict[Digest, LoadedBundle] = {}
        cold = []
        for arm in plan.arms:
            try:
                bundles[arm.bundle_digest] = warm.get(arm.bundle_digest) or self._load(arm, plan.model)
            except BundleError as error:
                if arm.weight > 0:
                    raise
                cold.append(f"version {arm.version} ({arm.role}) of '{plan.model}' is not warm: {error}")
        tried = before.trials if before else {}
        trials = {
            digest: tried.get(digest) or self._open_trial(bundles[digest])
            for digest in (arm.bundle_digest for arm in plan.arms if arm.role is Role.CHALLENGER)
            if digest in bundles
        }
        served = ServedModel(plan, MappingProxyType(bundles), MappingProxyType(trials), tuple(cold))
        self._served = MappingProxyType({**self._served, plan.model: served})
        for digest in tried.keys() - trials.keys():
            tried[digest].close()  # what was begun with it is finished first
        return served

    def close(self) -> None:
        """End the threads of versions on trial; what they were given is finished."""
        for served in self._served.values():
            for trial in served.trials.values():
                trial.close(seconds=_CLOSING_SECONDS)

    def _load(self, arm: Arm, model: ModelName) -> LoadedBundle:
        bundle = load_bundle(self._store.read(arm.bundle_digest), arm.bundle_digest)
        if bundle.contract.model != model:
            raise BundleError(
                f"Bundle {arm.bundle_digest} is of model '{bundle.contract.model}', the plan is of '{model}'. {STAYS}"
            )
        return bundle
