"""What a promotion risks, measured from what is on record of candidate and production."""

from datetime import timedelta

from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelVersion
from boucle.contracts.traffic_plan import Strategy
from boucle.policy.risk import RiskFacts
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import LEARNT, read_document, version_dir


def risk_of(home: Home, spec: LoopSpec, evidence: Evidence) -> RiskFacts:
    """The measured terms of promoting this version now; what is not on record is None."""
    learnt = _training(home, spec, evidence.version)
    before = None if evidence.production_version is None else _training(home, spec, evidence.production_version)
    slices = next((gate.measured for gate in evidence.gates if gate.name == "slices"), None)
    return RiskFacts(
        traffic_share=_first_share(spec),
        data_change=_new_periods(learnt, before, first=evidence.production_version is None),
        worst_slice_loss=None if slices is None else max(0.0, -slices),
        label_age_days=None if learnt is None else _label_age_days(home, spec, learnt),
    )


def _first_share(spec: LoopSpec) -> float:
    """The share of requests that the new version gets before it was judged on any."""
    policy = spec.traffic
    if policy.after_promotion is Strategy.DIRECT:
        return 1.0
    return policy.canary.steps[0].weight / 100


def _training(home: Home, spec: LoopSpec, version: ModelVersion) -> TrainingManifest | None:
    file = version_dir(home, spec, version) / LEARNT
    return read_document(file, TrainingManifest) if file.exists() else None


def _new_periods(learnt: TrainingManifest | None, before: TrainingManifest | None, *, first: bool) -> float | None:
    """Share of the periods of which production did not learn, or learnt other content; of a first version all."""
    if learnt is None or (before is None and not first):
        return None
    known = {} if before is None else before.snapshots
    return sum(known.get(period) != digest for period, digest in learnt.snapshots.items()) / len(learnt.snapshots)


def _label_age_days(home: Home, spec: LoopSpec, learnt: TrainingManifest) -> float:
    known_at = learnt.holdout_as_of[-1] + timedelta(days=learnt.horizon_days)
    return (home.clock(spec.name).now() - known_at) / timedelta(days=1)
