"""Load on one HTTP server: connections that ask without a pause, as a plain protocol, so that the client is no limit.

Each connection sends its next request when the answer to the last one is whole. Times are from the write of a request
to the last byte of its answer.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import numpy as np
import uvloop

AWAKE_SECONDS = 0.0005
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Measured:
    """What came back: seconds of each answer, when it came, and what was not an answer."""

    began: float
    ended: float
    seconds: list[float] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.seconds) / (self.ended - self.began)

    def quantile_ms(self, q: float, *, start: float = 0.0, end: float = np.inf) -> float:
        """A quantile of the times of answers that came in a window, in milliseconds."""
        chosen = [taken for taken, at in zip(self.seconds, self.at, strict=True) if start <= at < end]
        return float(np.quantile(chosen, q)) * 1_000 if chosen else float("nan")


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Sequence[bytes], tally: Measured, lost: asyncio.Event, pause: float) -> None:
        self._requests = cycle(requests)
        self._tally = tally
        self._lost = lost
        self._pause = pause
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first question."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Count an answer once it is whole, and ask the next question."""
        self._buffer = self._buffer + data if self._buffer else data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._buffer, 0, head + 2)
        if length is not None:
            whole = len(self._buffer) >= head + 4 + int(length[1])
        else:
            whole = self._buffer.endswith(b"\r\n0\r\n\r\n")
        if not whole:
            return
        now = time.perf_counter()
        if self._buffer[9:12] == b"200":
            self._tally.seconds.append(now - self._sent)
            self._tally.at.append(now)
        else:
            self._tally.failures[
                self._buffer[9:12].decode("latin-1") + " " + self._buffer[-200:].decode("latin-1")
            ] += 1
        self._buffer = b""
        if now < self._tally.ended:
            if self._pause:
                asyncio.get_running_loop().call_later(self._pause, self._ask)
            else:
                self._ask()
        else:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server ended it, or we did."""
        if time.perf_counter() < self._tally.ended:
            self._tally.failures[f"connection lost: {exc}"] += 1
        self._lost.set()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        if self._transport is not None:
            self._transport.write(next(self._requests))

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def http_request(path: str, body: bytes) -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def load(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, pause_seconds: float = 0.0
) -> Measured:
    """So many connections for so long; the first answers, while everything warms up, are the caller's business.

    With `pause_seconds` each connection rests between an answer and the next request: a server that is not saturated.
    """

    async def run() -> Measured:
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        tally = Measured(now, now + seconds)
        lost = [asyncio.Event() for _ in range(connections)]
        for place, event in enumerate(lost):
            own = [*requests[place:], *requests[:place]]
            await loop.create_connection(lambda o=own, e=event: _Caller(o, tally, e, pause_seconds), "127.0.0.1", port)  # type: ignore[misc]
        deadline = tally.ended + 60
        while not all(event.is_set() for event in lost):
            # Awake while answers come fast: waking us up must not be on the server's bill. Asleep when they do not: a
            # server that computes with several threads needs both cores.
            idle = time.perf_counter() - (tally.at[-1] if tally.at else 0.0)
            await asyncio.sleep(0 if idle < AWAKE_SECONDS else AWAKE_SECONDS)
            if time.perf_counter() > deadline:
                raise TimeoutError(f"port {port}: no answer for 60 s")
        return tally

    return uvloop.run(run())
