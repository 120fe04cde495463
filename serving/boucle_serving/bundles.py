"""Release bundles in memory: verified, and warmed up by their recorded requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

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
from boucle.contracts.ids import Digest
from boucle.errors import BundleError, FeatureLookupError
from boucle_serving.questions import QuestionReader

STAYS = "It was not loaded; a version that is in memory keeps answering."


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

    def scores(self, rows: Sequence[Sequence[float]], options: ort.RunOptions | None = None) -> list[float]:
        """The answers for feature rows, in the contract's order, as the model gives them: see `checked`."""
        (answers,) = self.session.run([ONNX_OUTPUT], {ONNX_INPUT: np.array(rows, dtype=np.float64)}, options)
        return list(answers.tolist())

    def checked(self, proba: float | None) -> float:
        """An answer that may leave.

        Raises:
            BundleError: It is not a number within the contract's limits.
        """
        output = self.contract.output
        if proba is None or not output.minimum <= proba <= output.maximum:
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


def load_bundle(files: Mapping[str, bytes], digest: Digest) -> LoadedBundle:
    """Load a bundle from its verified files and let it answer its recorded requests.

    Raises:
        BundleError: It cannot be loaded, or answers otherwise than the estimator it was made of.
    """
    try:
        contract = BundleContract.model_validate_json(files[CONTRACT_FILE])
        warm_up = WarmUp.model_validate_json(files[WARMUP_FILE])
        session = _session(files[MODEL_FILE])
    except KeyError as error:
        raise BundleError(f"Bundle {digest} has no file {error}. {STAYS}") from error
    except (ValidationError, RuntimeError) as error:
        raise BundleError(f"Bundle {digest} cannot be loaded: {error}. {STAYS}") from error
    bundle = LoadedBundle(digest, contract, session)
    _warm_up(bundle, warm_up)
    return bundle


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # one row takes microseconds: a second thread only fights for the core
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RuntimeError(f"{MODEL_FILE}: {error}") from error


def _warm_up(bundle: LoadedBundle, warm_up: WarmUp) -> None:
    if not warm_up.requests:
        raise BundleError(f"Bundle {bundle.digest} records no request, so nothing proves the model. {STAYS}")
    for number, request in enumerate(warm_up.requests):
        values = [float("nan") if value is None else value for value in request.features]
        try:
            found = bundle.checked(*bundle.scores([values]))
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(
                f"Bundle {bundle.digest} cannot answer its recorded request {number}: {error}. {STAYS}"
            ) from error
        if abs(found - request.expected) > warm_up.tolerance:
            # By its number: whoever reads this need not be allowed to know of whom the request was.
            raise BundleError(
                f"Bundle {bundle.digest} answers its recorded request {number} with {found!r}, expected "
                f"{request.expected!r} within {warm_up.tolerance:g}. {STAYS} Materialise `candidate_model` again."
            )
