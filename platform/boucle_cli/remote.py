"""Decisions said to the API of another machine: over TLS, with a token that no command line shows."""

import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from boucle.errors import ApprovalError, ConfigurationError

_SECONDS = 30.0


def say(url: str, verb: str, model: str, body: Mapping[str, object], *, token: str) -> dict[str, Any]:
    """What the API recorded.

    Args:
        url: Where it answers, for example `https://boucle.example.org`.
        verb: `approve` or `reject`.
        model: The model.
        body: The decision, as the API takes it.
        token: A bearer token whose role allows it.

    Raises:
        ConfigurationError: There is no address or no token, or the token would travel in the open.
        ApprovalError: The API refused, did not answer, or did not answer as boucle does.
    """
    _check(url, token)
    address = f"{url.rstrip('/')}/models/{quote(model, safe='')}/{verb}"
    try:
        # No redirect is followed: it could lead the token away.
        answer = httpx.post(address, json=body, headers={"authorization": f"Bearer {token}"}, timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ApprovalError(
            f"{address} did not answer: {error or type(error).__name__}. Whether anything was recorded is not known: "
            f"look at the ledger before you say it again."
        ) from error
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or answer.status_code not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        said = document.get("detail") if isinstance(document, dict) else "no problem document: is it boucle's API?"
        raise ApprovalError(f"{address} answered {answer.status_code}: {said}")
    return document


def _check(url: str, token: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"--url must be an address such as https://boucle.example.org, not '{url}'.")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{url} is not encrypted: the token could be read on its way. Say https://. Nothing was sent."
        )
    if not token.strip():
        raise ConfigurationError(
            "Put a token into $BOUCLE_TOKEN: `boucle token user:NAME --role approver` makes one where the API runs. "
            "Nothing was sent."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
