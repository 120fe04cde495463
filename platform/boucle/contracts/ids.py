"""Identifiers. Each is a plain string or number with a name, so that one cannot stand where another is meant."""

from typing import NewType

ModelName = NewType("ModelName", str)
"""Lower case, as in `defs.yaml`: `repurchase`."""

ModelVersion = NewType("ModelVersion", int)
"""The immutable number that the registry gave, counted from 1."""


def version_text(version: ModelVersion | None) -> str:
    """A version as sentences name it, also when there is none.

    >>> version_text(ModelVersion(3)), version_text(None)
    ('version 3', 'no version')
    """
    return "no version" if version is None else f"version {version}"


EntityKey = NewType("EntityKey", str)
"""Who or what a prediction is about: a customer, a flight."""

Digest = NewType("Digest", str)
"""Sixty-four hexadecimal characters: the SHA-256 of canonical bytes."""

PeriodKey = NewType("PeriodKey", str)
"""The partition key of one period: `1997-04` (monthly) or `1997-04-30` (daily)."""
