"""A traffic plan applied to requests. The rules themselves are in `boucle.policy.traffic`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from boucle.contracts.ids import Digest, EntityKey
from boucle.contracts.prediction import Fallback
from boucle.contracts.traffic_plan import Arm, Role, TrafficPlan
from boucle.policy.traffic import draw, is_shadowed
from boucle_serving.bundles import LoadedBundle
from boucle_serving.trial import Trial


@dataclass(frozen=True, eq=False)
class Routed:
    """The arm drawn for an entity, the arm that answers, and the model of the latter. Made once for each revision.

    They differ where the arm that was drawn did not answer: `fallback` says why, production answered.
    """

    plan: TrafficPlan
    assigned: Arm
    answering: Arm
    bundle: LoadedBundle
    trial: Trial | None = None
    """Who computes the answers of an arm on trial, so that its faults are nobody's."""
    fallback: Fallback | None = None
    pinned: bool = False
    """Its caller chose the arm."""
    strictest_age_days: float | None = None
    """How old the features may be of which it answers, where that is less than production's own contract allows."""

    @cached_property
    def answered_by(self) -> tuple[str, str]:
        """Version and role of the answering arm, as headers and metrics name them."""
        return str(self.answering.version), self.answering.role.value

    @cached_property
    def propensity(self) -> float:
        """The share of entities that the plan gives to the assigned arm."""
        return self.assigned.weight / 100

    @cached_property
    def assigned_role(self) -> str:
        """The role of the assigned arm."""
        return self.assigned.role.value


@dataclass(frozen=True, eq=False)
class Routes:
    """Who answers whom under one revision of a plan."""

    plan: TrafficPlan
    bundles: Mapping[Digest, LoadedBundle]
    trials: Mapping[Digest, Trial]
    _fallbacks: dict[tuple[int, Fallback, bool], Routed] = field(default_factory=dict)

    def of(self, entity_key: EntityKey | None) -> Routed:
        """Who answers this entity; where the caller names none, nobody is drawn: production."""
        routed = self._sole or (self.production if entity_key is None else self._arms[self._draw(entity_key).version])
        if routed.trial is not None and routed.trial.is_cut():
            return self.fallback(routed, Fallback.CUT)
        return routed

    def pinned(self, role: Role) -> Routed | None:
        """The arm of this role for whoever may choose; None where there is none that answers."""
        found = next(
            (self._arms[arm.version] for arm in self.plan.arms if arm.role is role and arm.version in self._arms), None
        )
        return None if found is None else replace(found, pinned=True)

    def fallback(self, routed: Routed, why: Fallback) -> Routed:
        """Production in place of the arm that was drawn."""
        key = (routed.assigned.version, why, routed.pinned)
        if key not in self._fallbacks:
            arm = self.plan.production
            self._fallbacks[key] = Routed(
                self.plan,
                routed.assigned,
                arm,
                self.bundles[arm.bundle_digest],
                fallback=why,
                pinned=routed.pinned,
            )
        return self._fallbacks[key]

    def shadows(self, routed: Routed, entity_key: EntityKey | None) -> tuple[tuple[Arm, Trial], ...]:
        """The arms that score this request as well, each with where it does: of production's answers all on trial."""
        if not self._shadows or routed.pinned or entity_key is None or not is_shadowed(self.plan, entity_key):
            return ()
        return self._shadows if routed.answering.role is Role.PRODUCTION else self._shadowed_by_production

    @cached_property
    def production(self) -> Routed:
        """The production arm for whoever is given to it."""
        return self._arms[self.plan.production.version]

    @cached_property
    def _arms(self) -> dict[int, Routed]:
        """Each arm that is in memory, by version."""
        return {arm.version: self._routed(arm) for arm in self.plan.arms if arm.bundle_digest in self.bundles}

    def _routed(self, arm: Arm) -> Routed:
        bundle = self.bundles[arm.bundle_digest]
        if arm.role is not Role.CHALLENGER:
            return Routed(self.plan, arm, arm, bundle)
        trial = self.trials.get(arm.bundle_digest)
        return Routed(self.plan, arm, arm, bundle, trial=trial, strictest_age_days=self._stricter_age(bundle))

    def _stricter_age(self, bundle: LoadedBundle) -> float | None:
        production = self.bundles.get(self.plan.production.bundle_digest)
        days = bundle.contract.max_feature_age_days
        return None if production and days >= production.contract.max_feature_age_days else days

    @cached_property
    def _draw(self) -> Callable[[EntityKey], Arm]:
        return draw(self.plan)

    @cached_property
    def _sole(self) -> Routed | None:
        """Who answers everybody, where one does: nobody has to be drawn then."""
        return next((self._arms[arm.version] for arm in self.plan.arms if arm.weight == 100), None)

    @cached_property
    def _shadows(self) -> tuple[tuple[Arm, Trial], ...]:
        if not self.plan.shadow_share:
            return ()
        return tuple(
            (arm, self.trials[arm.bundle_digest]) for arm in self.plan.challengers if arm.bundle_digest in self.trials
        )

    @cached_property
    def _shadowed_by_production(self) -> tuple[tuple[Arm, Trial], ...]:
        production = self.plan.production
        return tuple((production, trial) for _, trial in self._shadows[:1])
