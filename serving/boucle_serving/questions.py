"""What callers ask: about whom, as of when, or about features they give. Checked against the contract in production."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from boucle.contracts.bundle import BundleContract, FeatureSpec
from boucle.contracts.ids import EntityKey
from boucle_serving.problems import FieldError, InvalidRequestError

_MISSING = float("nan")


class Question(NamedTuple):
    """A checked request: about whom, as of when (UTC), and both as they were sent. The features are looked up."""

    entity_key: EntityKey
    as_of: datetime
    sent: Mapping[str, object]


class FeatureRow(NamedTuple):
    """A checked request that brings its features, in the contract's order (NaN is missing), and how it was sent.

    Entity and moment are None where the caller did not name them.
    """

    entity_key: EntityKey | None
    as_of: datetime | None
    values: Sequence[float]
    sent: Mapping[str, object]


class QuestionReader:
    """Reads `{<entity>: key, "as_of": moment}`, or a row with every feature by its name, for one contract."""

    def __init__(self, contract: BundleContract) -> None:
        self._entity = contract.entity
        self._key = contract.key
        self._features = contract.features
        self._names = frozenset(contract.feature_names)
        self._matches: Callable[[str], object] = re.compile(contract.key.pattern).match

    def read(self, payload: object) -> Question | FeatureRow:
        """Check one request.

        Raises:
            InvalidRequestError: A field is missing, unknown or malformed; all of them are named at once.
        """
        entity = self._entity
        if not isinstance(payload, dict):
            raise InvalidRequestError(
                FieldError("body", f'must be a JSON object like {{"{entity}": "4", "as_of": "1997-10-01"}}')
            )
        if not self._names.isdisjoint(payload):
            return self._feature_row(payload)
        errors: list[FieldError] = []
        key = self._entity_key(payload, errors)
        as_of = _as_of(payload, errors)
        if len(payload) > 2 or errors:
            hint = f"the fields are {entity} and as_of, or every feature"
            errors[:0] = unknown_fields(payload, {entity, "as_of"}, hint)
        if errors or as_of is None:
            raise InvalidRequestError(*errors)
        return Question(EntityKey(key), as_of, payload)

    def _feature_row(self, payload: Mapping[str, object]) -> FeatureRow:
        entity = self._entity
        errors = unknown_fields(payload, self._names | {entity, "as_of"}, "GET /models names the features")
        key = EntityKey(self._entity_key(payload, errors)) if payload.get(entity) is not None else None
        as_of = _as_of(payload, errors) if payload.get("as_of") is not None else None
        values = [_value(feature, payload, errors) for feature in self._features]
        if errors:
            raise InvalidRequestError(*errors)
        return FeatureRow(key, as_of, values, payload)

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


def unknown_fields(payload: Mapping[str, object], known: frozenset[str] | set[str], hint: str) -> list[FieldError]:
    """An error for each field that is not among the known ones."""
    return [FieldError(f"{name!r:.80}".strip("'"), f"is not known; {hint}") for name in payload if name not in known]


def _value(feature: FeatureSpec, payload: Mapping[str, object], errors: list[FieldError]) -> float:
    """The value of one feature as the contract allows it."""
    sent = payload.get(feature.name)
    if feature.categories and isinstance(sent, str):
        return _place(feature, sent, errors)
    if sent is not None and (isinstance(sent, bool) or not isinstance(sent, int | float)):
        errors.append(FieldError(feature.name, f"must be a number or null, not {sent!r:.80}"))
        return _MISSING
    try:
        value = _MISSING if sent is None else float(sent)
    except OverflowError:
        value = math.inf
    problem = _problem(feature, value)
    if problem:
        errors.append(FieldError(feature.name, "is required" if feature.name not in payload else problem))
    return value


def _place(feature: FeatureSpec, sent: str, errors: list[FieldError]) -> float:
    """The value of a category by its name; an unknown one is missing, if it may be."""
    if sent in feature.categories:
        return float(feature.categories.index(sent))
    if not feature.nullable:
        errors.append(FieldError(feature.name, f"must be one of {', '.join(feature.categories)}, not {sent!r:.80}"))
    return _MISSING


def _problem(feature: FeatureSpec, value: float) -> str | None:
    if math.isnan(value):
        return None if feature.nullable else "must be a number: it is never missing"
    if math.isinf(value):
        return "must be finite"
    if feature.categories and value not in range(len(feature.categories)):
        return f"must be one of {', '.join(feature.categories)}, or its place from 0, not {value!r}"
    if feature.dtype == "int64" and not value.is_integer():
        return f"must be a whole number, not {value!r}"
    return _beyond(feature, value)


def _beyond(feature: FeatureSpec, value: float) -> str | None:
    if feature.minimum is not None and value < feature.minimum:
        return f"must be at least {feature.minimum:g}, not {value!r}"
    if feature.maximum is not None and value > feature.maximum:
        return f"must be at most {feature.maximum:g}, not {value!r}"
    return None


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
