"""Release bundles in memory: verified, warmed up, swapped without a request noticing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from pydantic import ValidationError

from boucle.contracts.bundle import (
    CONTRACT_FILE,
    MODEL_FILE,
    ONNX_INPUT,
    ONNX_OUTPUT,
    WARMUP_FILE,
    BundleContract,
    WarmUp,
)
from boucle.contracts.ids import Digest, ModelName
from boucle.contracts.traffic_plan import Arm, TrafficPlan
from boucle.errors import BundleError, FeatureLookupError
from boucle.ports import BundleStore
from boucle_serving.questions import QuestionReader

_STAYS = "It was not loaded; a version that is in memory keeps answering."


@dataclass(frozen=True)
class LoadedBundle:
    """One model that answers."""

    digest: Digest
    contract: BundleContract
    session: ort.InferenceSession
    _columns: dict[tuple[str, ...], tuple[int, ...] | None] = field(default_factory=dict)

    @cached_property
    def questions(self) -> QuestionReader:
        """Reads what callers ask of this model."""
        return QuestionReader(self.contract)

    def scores(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """The answers for feature rows, in the contract's order, as the model gives them: see `checked`."""
        (answers,) = self.session.run([ONNX_OUTPUT], {ONNX_INPUT: np.array(rows, dtype=np.float64)})
        return list(answers.tolist())

    def checked(self, proba: float) -> float:
        """An answer that may leave.

        Raises:
            BundleError: It is not a number within the contract's limits.
        """
        output = self.contract.output
        if not output.minimum <= proba <= output.maximum:
            raise BundleError(
                f"The model of '{self.contract.model}' answered {proba}, outside [{output.minimum:g}, "
                f"{output.maximum:g}]. The answer was withheld; roll back if it happens again."
            )
        return proba

    def in_order(self, values: Sequence[float], names: tuple[str, ...]) -> Sequence[float]:
        """The values that the contract names, in its order, out of a row whose columns are `names`.

        Raises:
            FeatureLookupError: The row lacks a feature of the contract.
        """
        if names not in self._columns:
            self._columns[names] = self._positions(names)
        positions = self._columns[names]
        return values if positions is None else [values[position] for position in positions]

    def _positions(self, names: tuple[str, ...]) -> tuple[int, ...] | None:
        wanted = self.contract.feature_names
        if wanted == names:
            return None
        missing = [name for name in wanted if name not in names]
        if missing:
            raise FeatureLookupError(
                f"A row of '{self.contract.model}' lacks the features {', '.join(missing)} that the version in traffic "
                "needs. Materialise `online_features` again, or give them with the request."
            )
        return tuple(names.index(name) for name in wanted)


@dataclass(frozen=True)
class ServedModel:
    """One revision of a plan with its models in memory. A request takes one and keeps it until it is answered."""

    plan: TrafficPlan
    bundles: Mapping[Digest, LoadedBundle]
    cold: tuple[str, ...] = ()
    """Why a standby arm is not warm, a sentence each."""

    @cached_property
    def production(self) -> LoadedBundle:
        """The bundle of the production arm."""
        return self.bundles[self.plan.production.bundle_digest]

    @cached_property
    def sole_arm(self) -> Arm | None:
        """The arm that answers everybody, where one does: nobody has to be drawn then."""
        return next((arm for arm in self.plan.arms if arm.weight == 100), None)


class Predictor:
    """The models that this replica serves. One thread applies plans; any thread may read."""

    def __init__(self, store: BundleStore) -> None:
        self._store = store
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
        served = ServedModel(plan, MappingProxyType(bundles), tuple(cold))
        self._served = MappingProxyType({**self._served, plan.model: served})
        return served

    def _load(self, arm: Arm, model: ModelName) -> LoadedBundle:
        bundle = load_bundle(self._store.fetch(arm.bundle_digest), arm.bundle_digest)
        if bundle.contract.model != model:
            raise BundleError(
                f"Bundle {arm.bundle_digest} is of model '{bundle.contract.model}', the plan is of '{model}'. {_STAYS}"
            )
        return bundle


def load_bundle(directory: Path, digest: Digest) -> LoadedBundle:
    """Load a verified bundle and let it answer its recorded requests.

    Raises:
        BundleError: It cannot be loaded, or answers otherwise than the estimator it was made of.
    """
    try:
        contract = BundleContract.model_validate_json((directory / CONTRACT_FILE).read_bytes())
        warm_up = WarmUp.model_validate_json((directory / WARMUP_FILE).read_bytes())
        session = _session(directory / MODEL_FILE)
    except (OSError, ValidationError, RuntimeError) as error:
        raise BundleError(f"Bundle {directory} cannot be loaded: {error}. {_STAYS}") from error
    bundle = LoadedBundle(digest, contract, session)
    _warm_up(bundle, warm_up, directory)
    return bundle


def _session(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # one row takes microseconds: a second thread only fights for the core
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RuntimeError(f"{model.name}: {error}") from error


def _warm_up(bundle: LoadedBundle, warm_up: WarmUp, directory: Path) -> None:
    if not warm_up.requests:
        raise BundleError(f"{directory / WARMUP_FILE} records no request, so nothing proves the model. {_STAYS}")
    for request in warm_up.requests:
        values = [float("nan") if value is None else value for value in request.features]
        try:
            found = bundle.checked(*bundle.scores([values]))
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(
                f"{directory / MODEL_FILE} cannot answer a recorded request: {error}. {_STAYS}"
            ) from error
        if abs(found - request.expected) > warm_up.tolerance:
            raise BundleError(
                f"{directory / MODEL_FILE} answers {found!r} for '{request.entity_key}', expected {request.expected!r} "
                f"within {warm_up.tolerance:g}. {_STAYS} Materialise `candidate_model` again."
            )
