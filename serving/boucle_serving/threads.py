"""Threads for what is answered beside the event loop and asks for predictions, or tells of them."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio.to_thread

_Said = ParamSpec("_Said")
_Answer = TypeVar("_Answer")
PREDICTING_THREADS = 16
"""More would answer no batch sooner, which needs the processor, and each takes turns from who decides meanwhile."""


class PredictingThreads:
    """Threads of batches, ranked lists and feedback together, which take none of the 40 that AnyIO has by default.

    Those are for looks and decisions, whose places (`boucle_serving.admission`) are fewer: they find one whatever hangs
    here. Requests that find no thread wait for one, in their order.
    """

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(PREDICTING_THREADS)

    async def run(self, work: Callable[_Said, _Answer], *args: _Said.args, **said: _Said.kwargs) -> _Answer:
        """What the work returns or raises."""
        return await anyio.to_thread.run_sync(lambda: work(*args, **said), limiter=self._limiter)
