"""The release bundle: everything that serving loads, in one directory named by its digest.

Files: `model.onnx` (one input `features`: float64, shape [n, len(features)]; one output `proba`: float64, shape [n]),
`contract.json` (`BundleContract`), `warmup.json` (`WarmUp`), `manifest.json` (`BundleManifest`).
The bundle's digest is the digest of its manifest.
"""

from typing import Literal

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, EntityKey, ModelName

MODEL_FILE = "model.onnx"
CONTRACT_FILE = "contract.json"
WARMUP_FILE = "warmup.json"
MANIFEST_FILE = "manifest.json"
ONNX_INPUT = "features"
ONNX_OUTPUT = "proba"


class FeatureSpec(Document):
    """One feature: its type, whether it may be missing (NaN to the model), its closed range and unit.

    Where it is a category, its value is the place of its name in `categories`, from 0.
    """

    name: str
    dtype: Literal["float64", "int64"]
    nullable: bool
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()


class KeySpec(Document):
    """The entity key as text: its length in characters and, where it has one, the regular expression it begins with."""

    min_length: int = 1
    max_length: int = 256
    pattern: str = ""
    description: str = ""


class OutputSpec(Document):
    """The answer: a probability in [0, 1], of the event that `description` names."""

    name: Literal["proba"] = "proba"
    minimum: float = 0.0
    maximum: float = 1.0
    description: str


class BundleContract(Document):
    """What a request needs and what an answer is: `entity` names the key (`user_id`), `key` says what it may be."""

    schema_version: Literal[1] = 1
    model: ModelName
    entity: str
    key: KeySpec = KeySpec()
    features: tuple[FeatureSpec, ...]
    output: OutputSpec
    max_feature_age_days: float

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names in the order of the model's input columns."""
        return tuple(feature.name for feature in self.features)


class RecordedRequest(Document):
    """One feature row, in the contract's order (None is missing), and the answer the estimator gave."""

    entity_key: EntityKey
    features: tuple[float | None, ...]
    expected: float


class WarmUp(Document):
    """Recorded requests, answered before the first real one; a loader refuses a bundle that answers otherwise."""

    schema_version: Literal[1] = 1
    tolerance: float = 1e-9
    requests: tuple[RecordedRequest, ...]


class BundleManifest(Document):
    """SHA-256 of each file beside it, by file name."""

    schema_version: Literal[1] = 1
    model: ModelName
    files: dict[str, Digest]
