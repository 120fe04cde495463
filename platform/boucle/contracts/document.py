"""What every document that platform and serving exchange has in common."""

import hashlib
import json

from pydantic import BaseModel, ConfigDict

from boucle.contracts.ids import Digest


class Document(BaseModel):
    """A frozen, strictly typed value; unknown fields are refused, so that a misspelt one cannot pass silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> bytes:
        """Its JSON with sorted keys and no spaces, in UTF-8: equal values give equal bytes."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> Digest:
        """SHA-256 of the canonical bytes."""
        return Digest(hashlib.sha256(self.canonical()).hexdigest())


def canonical_json(value: object) -> bytes:
    """JSON of a plain value with sorted keys and no spaces, in UTF-8. NaN is refused: it is not JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
