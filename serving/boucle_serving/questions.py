"""What callers ask: about whom, as of when. Checked against the contract of the bundle in production."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from boucle.contracts.bundle import BundleContract
from boucle.contracts.ids import EntityKey
from boucle_serving.problems import FieldError, InvalidRequestError


class Question(NamedTuple):
    """A checked request: about whom, as of when (UTC), and both as they were sent."""

    entity_key: EntityKey
    as_of: datetime
    sent: Mapping[str, object]


class QuestionReader:
    """Reads requests of the form `{<entity>: key, "as_of": moment}` for one contract."""

    def __init__(self, contract: BundleContract) -> None:
        self._entity = contract.entity
        self._key = contract.key
        self._matches: Callable[[str], object] = re.compile(contract.key.pattern).match

    def read(self, payload: object) -> Question:
        """Check one request.

        Raises:
            InvalidRequestError: A field is missing, unknown or malformed; all of them are named at once.
        """
        entity = self._entity
        if not isinstance(payload, dict):
            raise InvalidRequestError(
                FieldError("body", f'must be a JSON object like {{"{entity}": "4", "as_of": "1997-10-01"}}')
            )
        errors: list[FieldError] = []
        key = self._entity_key(payload, errors)
        as_of = _as_of(payload, errors)
        if len(payload) > 2 or errors:
            errors[:0] = [
                FieldError(f"{name!r:.80}".strip("'"), f"is not known; the fields are {entity} and as_of")
                for name in payload
                if name not in (entity, "as_of")
            ]
        if errors or as_of is None:
            raise InvalidRequestError(*errors)
        return Question(EntityKey(key), as_of, payload)

    def _entity_key(self, payload: Mapping[str, object], errors: list[FieldError]) -> str:
        entity, key = self._entity, self._key
        value = payload.get(entity)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if entity not in payload:
            errors.append(FieldError(entity, "is required"))
        elif not isinstance(value, str):
            errors.append(FieldError(entity, f"must be a string or a whole number, not {value!r:.80}"))
        elif not key.min_length <= len(value) <= key.max_length or not value.isprintable():
            errors.append(FieldError(entity, f"must have {key.min_length} to {key.max_length} printable characters"))
        elif not self._matches(value):
            errors.append(FieldError(entity, f"must match {key.pattern} ({key.description}), not {value!r:.80}"))
        else:
            return value
        return ""


def _as_of(payload: Mapping[str, object], errors: list[FieldError]) -> datetime | None:
    value = payload.get("as_of")
    if "as_of" not in payload:
        errors.append(FieldError("as_of", "is required"))
        return None
    try:
        if not isinstance(value, str):
            raise TypeError
        return _moment(value)
    except (TypeError, ValueError, OverflowError):
        message = f"must be an ISO 8601 date or date-time (UTC unless it says otherwise), not {value!r:.80}"
        errors.append(FieldError("as_of", message))
        return None


@lru_cache(maxsize=1024)  # callers ask about few moments at a time
def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
