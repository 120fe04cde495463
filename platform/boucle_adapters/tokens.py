"""Bearer tokens of those who may decide over HTTP: a file that holds their digests, never the tokens."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from boucle.errors import ConfigurationError
from boucle.policy.approval import PERSON, is_person
from boucle_adapters.atomic_file import replace_bytes

_SERVICE = "service:"
_PREFIX = "boucle_"
"""So that a token that leaks is recognised by scanners."""
MAX_TOKEN_LENGTH = 200
"""Characters. Those that are made have 50; what is longer is nobody's, and no work is done for it."""


class Role(StrEnum):
    """What a bearer may do: an approver asks, approves and refuses; an operator rolls back; an alerter says what is
    wrong with a model; a caller asks for predictions, where these need a key; a tester chooses who answers it; a viewer
    sees what is served and why."""

    ALERTER = "alerter"
    APPROVER = "approver"
    OPERATOR = "operator"
    CALLER = "caller"
    TESTER = "tester"
    VIEWER = "viewer"


@dataclass(frozen=True)
class Bearer:
    """Whose token it is, as the ledger names people, and what it allows."""

    actor: str
    roles: frozenset[Role]


_OF_SERVICES = frozenset({Role.ALERTER, Role.CALLER, Role.TESTER, Role.VIEWER})
"""What decides nothing: a service may do it."""
_FILE = TypeAdapter(dict[str, Bearer])


@dataclass(frozen=True)
class Tokens:
    """What a file of tokens said when it was read."""

    bearers: Mapping[str, Bearer]
    """By the digest of a token."""

    def bearer(self, token: str) -> Bearer | None:
        """Whose token this is; None if it is not known. Every digest is compared, in a time that tells nothing."""
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        asked, found = _digest(token), None
        for known, bearer in self.bearers.items():
            if hmac.compare_digest(known, asked):
                found = bearer
        return found


@dataclass(frozen=True)
class TokenStore:
    """The tokens of one home."""

    file: Path

    def read(self) -> Tokens:
        """Those of now.

        Raises:
            ConfigurationError: The file is no file of tokens.
            OSError: It cannot be read.
        """
        return Tokens(self._read())

    def bearer(self, token: str) -> Bearer | None:
        """Whose token this is now; None if it is not known. Raises as `read` does."""
        return self.read().bearer(token)

    def roles(self) -> frozenset[Role]:
        """Every role that somebody has."""
        return frozenset(role for bearer in self._read().values() for role in bearer.roles)

    def add(self, actor: str, roles: Collection[Role]) -> str:
        """A new token, which is shown this once and kept as a digest."""
        token = _PREFIX + secrets.token_urlsafe(32)
        known = self._read() | {_digest(token): Bearer(actor, frozenset(roles))}
        self._write(known)
        return token

    def revoke(self, actor: str) -> int:
        """Forget every token of an actor; how many there were."""
        known = self._read()
        kept = {digest: bearer for digest, bearer in known.items() if bearer.actor != actor}
        self._write(kept)
        return len(known) - len(kept)

    def _write(self, tokens: dict[str, Bearer]) -> None:
        text = {digest: {"actor": b.actor, "roles": sorted(b.roles)} for digest, b in tokens.items()}
        replace_bytes(self.file, json.dumps(text, indent=1).encode())
        self.file.chmod(0o600)

    def _read(self) -> dict[str, Bearer]:
        if not self.file.exists():
            return {}
        try:
            return _FILE.validate_json(self.file.read_bytes())
        except ValidationError as error:
            raise ConfigurationError(
                f"{self.file} is not a file of tokens ({error.errors()[0]['msg']}). Move it away, run `boucle token`: "
                "nobody may decide over HTTP until then."
            ) from error


def roles_of(actor: str, names: Collection[str]) -> frozenset[Role]:
    """The roles of these names, for a person or, if it decides nothing, a service.

    Raises:
        ConfigurationError: There is no such role, none was named, or who decides is no person.
    """
    decides_nothing = bool(names) and set(names) <= _OF_SERVICES
    if decides_nothing and not (is_person(actor) or actor.removeprefix(_SERVICE) not in {actor, ""}):
        raise ConfigurationError(f"'{actor}' is nobody: say {_SERVICE}NAME or {PERSON}NAME. No token was made.")
    if not decides_nothing and not is_person(actor):
        raise ConfigurationError(f"'{actor}' is no person: say {PERSON}NAME. No token was made.")
    if not names or (strange := sorted(set(names) - {role.value for role in Role})):
        said = f"not {', '.join(strange)}" if names else "none was named"
        raise ConfigurationError(f"Name a role with --role: {', '.join(Role)}; {said}. No token was made.")
    return frozenset(Role(name) for name in names)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
