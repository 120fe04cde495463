"""One version on its way to another environment: a tar file with its bundle, what it learnt from, and its evidence.

Members: `archive.json` (`ArchiveManifest`), `archive.sha256` (the SHA-256 of that file, and a line feed), the bundle's
files under `bundle/`, `training.json` (`TrainingManifest`) and `evidence.json` (`Evidence`). No row of data is in it
but the requests that the bundle recorded, and nothing that a browser or an interpreter would run.
"""

from typing import Literal

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion

ARCHIVE_FILE, ARCHIVE_DIGEST_FILE = "archive.json", "archive.sha256"
TRAINING_FILE, EVIDENCE_FILE = "training.json", "evidence.json"
BUNDLE_FOLDER = "bundle/"
ARCHIVE_FORMAT = 1


class ArchiveManifest(Document):
    """What an archive says of itself; `files` has the SHA-256 of each other member, by name.

    `version` is the number that the registry of `environment` gave. `origin` says in words what it is there, and by
    which environments it came: `version 4 of staging, there from version 7 of dev`. `git_commit`, `source_digest`,
    `environment_digest` and `seed` are of the code, the packages and the fit that made it, wherever that was.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    environment: str
    origin: str
    bundle_digest: Digest
    data_digest: Digest
    evidence_digest: Digest
    git_commit: str
    source_digest: str
    environment_digest: str
    seed: int
    files: dict[str, Digest]
