"""Heads of requests that need no parser: `POST` with a plain path, and headers that change nothing about the body.

Whoever gets None asks the parser, so this knows few requests and must be right about those. A head that is not known to
be plain is none: a header twice, a body in chunks, a wish to be asked before the body, a connection that is to end.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from boucle_serving.middleware import PLAIN_ID

MOST_HEAD_BYTES = 8_192
_REQUEST = re.compile(rb"POST (/[A-Za-z0-9/_.\-]*) HTTP/1\.1")
_NAME, _VALUE = re.compile(rb"[A-Za-z0-9\-]+"), re.compile(rb"[ -~]*")
_LENGTH = re.compile(rb"[0-9]{1,7}")
_NOT_PLAIN = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"content-encoding", b"x-boucle-arm"}
)


class PlainHead(NamedTuple):
    """What a head says. `request_id` is the caller's, where it gave a plain one."""

    path: str
    content_length: int
    headers: list[tuple[bytes, bytes]]
    request_id: str | None


@lru_cache(maxsize=1_024)  # a caller sends the same head again and again
def plain_head(head: bytes) -> PlainHead | None:
    """What a head says, without the empty line that ends it; None if it is not plain."""
    first, *lines = head.split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    headers: dict[bytes, bytes] = {}
    for line in lines:
        said, colon, value = line.partition(b":")
        name, value = said.lower(), value.strip(b" \t")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in {*headers, *_NOT_PLAIN}:
            return None
        headers[name] = value
    length = headers.get(b"content-length", b"")
    keeps_alive = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    if request is None or not keeps_alive or not _LENGTH.fullmatch(length):
        return None
    asked_as = headers.get(b"x-request-id", b"")
    request_id = asked_as.decode() if PLAIN_ID.fullmatch(asked_as) else None
    return PlainHead(request[1].decode(), int(length), list(headers.items()), request_id)
