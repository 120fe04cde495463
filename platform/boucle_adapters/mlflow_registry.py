"""The model registry over MLflow: a SQLite file in the home by default, a server by URL."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from boucle.contracts.bundle import MODEL_FILE, BundleContract
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.errors import RegistryError
from boucle.ports import RegisteredVersion

if TYPE_CHECKING:
    from mlflow import ActiveRun, MlflowClient

# Pinned by hand: MLflow would infer them in a subprocess, which takes 4 s (and needs the package index).
SERVING_REQUIREMENTS = ["onnxruntime", "numpy"]


P = ParamSpec("P")
R = TypeVar("R")


def _converted(method: Callable[P, R]) -> Callable[P, R]:
    """The method, with what MLflow raises as a RegistryError that names the server."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import DatabaseError

        try:
            return method(*args, **kwargs)
        except (MlflowException, DatabaseError) as error:
            uri = re.sub(r"//[^@/]*@", "//***@", args[0].tracking_uri)  # type: ignore[attr-defined]
            said = error.orig if isinstance(error, DatabaseError) else error.message
            raise RegistryError(
                f"The model registry at {uri} did not do it: {said}. Check that it runs and that "
                "BOUCLE_MLFLOW_TRACKING_URI is right, then do it again."
            ) from error

    return call


class MlflowRegistry:
    """`boucle.ports.ModelRegistry` over `MlflowClient`, plus what registering a candidate needs.

    Every method raises RegistryError when MLflow cannot be reached or refuses.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path) -> None:
        self.tracking_uri = tracking_uri
        self._artifact_root = artifact_root
        self._opened: MlflowClient | None = None

    def version(self, model: ModelName, version: ModelVersion) -> RegisteredVersion:
        """One version. Raises RegistryError when there is none."""
        for registered in self.versions(model):
            if registered.version == version:
                return registered
        raise RegistryError(
            f"The registry has no version {version} of '{model}'; the MLflow UI of `boucle dev` lists them."
        )

    @_converted
    def versions(self, model: ModelName) -> Sequence[RegisteredVersion]:
        """All versions, oldest first."""
        found = self._client.search_model_versions(f"name='{model}'")
        versions = [
            RegisteredVersion(version=ModelVersion(int(item.version)), run_id=item.run_id or "", tags=dict(item.tags))
            for item in found
        ]
        return sorted(versions, key=lambda item: item.version)

    @_converted
    def alias(self, model: ModelName, alias: str) -> ModelVersion | None:
        """The version that carries the alias, or None."""
        # search_model_versions returns versions without their aliases, so the registered model itself is asked.
        aliases = self._registered(model).aliases if self._exists(model) else {}
        return ModelVersion(int(aliases[alias])) if alias in aliases else None

    @_converted
    def set_alias(self, model: ModelName, alias: str, version: ModelVersion | None) -> None:
        """Point the alias at the version; None removes it."""
        if version is not None:
            self._client.set_registered_model_alias(model, alias, str(version))
        elif self._exists(model):
            self._client.delete_registered_model_alias(model, alias)

    @_converted
    def set_tags(self, model: ModelName, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(model, str(version), key, value)

    @_converted
    def ensure_experiment(self, name: str) -> None:
        """Create the experiment with its artifacts in the home; MLflow's default would be the current directory."""
        if self._client.get_experiment_by_name(name) is None:
            local = self.tracking_uri.startswith("sqlite:")
            self._client.create_experiment(name, str(self._artifact_root / name) if local else None)

    @_converted
    def start_run(self, experiment: str, name: str) -> "ActiveRun":
        """Begin an MLflow run, a context manager: for a version that no training run here made."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        self.ensure_experiment(experiment)
        found = self._client.get_experiment_by_name(experiment)
        return mlflow.start_run(experiment_id=found.experiment_id if found else None, run_name=name)

    @_converted
    def register(
        self, contract: BundleContract, bundle: Path, *, example: Sequence[float | None], tags: Mapping[str, str]
    ) -> ModelVersion:
        """Log the bundle and its ONNX model (signature, input example) to the active MLflow run; register a version."""
        import mlflow
        import numpy as np
        import onnx
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        mlflow.set_tracking_uri(self.tracking_uri)
        row = np.array([[np.nan if value is None else value for value in example]], dtype=np.float64)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float64), (-1, len(contract.features)), "features")]),
            outputs=Schema([TensorSpec(np.dtype(np.float64), (-1,), contract.output.name)]),
        )
        mlflow.log_artifacts(str(bundle), artifact_path="bundle")
        info = mlflow.onnx.log_model(
            onnx.load(str(bundle / MODEL_FILE)),
            name="model",
            signature=signature,
            input_example={"features": row},
            pip_requirements=SERVING_REQUIREMENTS,
            onnx_execution_providers=["CPUExecutionProvider"],
        )
        if not self._exists(contract.model):
            self._client.create_registered_model(contract.model)
        created = self._client.create_model_version(
            contract.model, source=info.model_uri, run_id=info.run_id, model_id=info.model_id, tags=dict(tags)
        )
        return ModelVersion(int(created.version))

    @_converted
    def log_run(
        self, *, params: Mapping[str, object], metrics: Mapping[str, float], tags: Mapping[str, str], run_id: str = ""
    ) -> None:
        """Log to the active MLflow run, or to the run named."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        active = mlflow.active_run()
        target = run_id or (active.info.run_id if active else "")
        if not target:
            raise RegistryError("There is no MLflow run to log to.")
        for name, value in params.items():
            self._client.log_param(target, name, value)
        for name, number in metrics.items():
            self._client.log_metric(target, name, float(number))
        for name, text in tags.items():
            self._client.set_tag(target, name, text)

    @_converted
    def log_file(self, run_id: str, file: Path) -> None:
        """Keep a copy of a file with an MLflow run."""
        self._client.log_artifact(run_id, str(file))

    @property
    def _client(self) -> "MlflowClient":
        if self._opened is None:
            from mlflow import MlflowClient

            self._opened = MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
        return self._opened

    def _registered(self, model: ModelName) -> Any:
        return self._client.get_registered_model(model)

    def _exists(self, model: ModelName) -> bool:
        return bool(self._client.search_registered_models(f"name='{model}'", max_results=1))
