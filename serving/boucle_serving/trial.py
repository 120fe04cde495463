"""Where a version on trial computes, so that nothing it does wrong fails a caller, or holds one up for long.

A quick one is asked in the event loop, like production: handing a question to another thread takes longer than the
answer. One that was slow once is asked in a thread of its own from then on, and its shadows are always scored there.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import datetime
from queue import SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import NamedTuple

import onnxruntime as ort

from boucle.contracts.shadow import ShadowFields
from boucle.contracts.traffic_plan import Arm, TrafficPlan
from boucle_serving.bundles import LoadedBundle

_LOGGER = logging.getLogger("boucle.serving")
FAILURES_IN_A_ROW = 5
"""So many, and the arm is not asked any more but by one request every `PROBE_SECONDS`."""
PROBE_SECONDS = 1.0
MOST_SHADOWS_WAITING = 1_000
_SHADOWS_AT_ONCE = 16
_GATHER_SECONDS = 0.005
"""Shadows wait so long for others: waking the thread for each costs the callers more than the scoring."""
_QUICK_TRIES = 3
_QUICK_SECONDS, _STILL_QUICK_SECONDS = 0.002, 0.02
_SLOW_IN_A_ROW, _FEW_ROWS = 3, 32
Rows = Sequence[Sequence[float]]
Scores = Sequence[float | None]


class Shadow(NamedTuple):
    """An answered request that another arm is to score as well."""

    prediction_id: str
    at: datetime
    plan: TrafficPlan
    arm: Arm
    bundle: LoadedBundle
    values: Sequence[float] | None
    """None where the row lacks something that the arm needs."""


class _Question(NamedTuple):
    rows: Rows
    answer: Future[Scores | None]


class _Run(NamedTuple):
    ends: float
    """`perf_counter()` at which it is told to end."""
    options: ort.RunOptions


class Trial:
    """One version on trial in this replica. Callers' questions come first; shadows that are too many are skipped.

    Args:
        bundle: What answers.
        replica: Who writes the shadow answers.
        budget_seconds: How long a caller waits for it, at most.
        write: Takes the shadow answers.
        skipped: Is told how many shadows were skipped.

    `is_quick` says whether it may be asked in the event loop.
    """

    def __init__(
        self,
        bundle: LoadedBundle,
        *,
        replica: str,
        budget_seconds: float,
        write: Callable[[Sequence[ShadowFields]], object],
        skipped: Callable[[int], None],
    ) -> None:
        self.bundle = bundle
        self.budget_seconds = budget_seconds
        self._replica = replica
        self._write = write
        self._skipped = skipped
        self._failures = 0
        self._cut_until = 0.0
        self._runs: dict[int, _Run] = {}
        self._queue: SimpleQueue[_Question | None] = SimpleQueue()
        self._shadows: deque[Shadow] = deque()
        self._shadows_come = threading.Event()
        self._closing = False
        self._slow_in_a_row = 0
        self._threads = [self._started(self._answer_forever), self._started(self._shadow_forever)]
        self._started(self._watch)
        self.is_quick = self._was_quick([[0.0] * len(bundle.contract.features)])

    def ask_now(self, rows: Rows) -> Scores | None:
        """The scores of feature rows, in the contract's order, None for rows that it fails on; None if it was too late.

        For a version that `is_quick`: it is asked in the thread of whoever asks.
        """
        started = perf_counter()
        scores = self._scores(self.bundle, rows)
        seconds = perf_counter() - started
        self._judge(seconds, len(rows))
        return None if seconds > self.budget_seconds else scores

    def ask(self, rows: Rows) -> "Future[Scores | None]":
        """What `ask_now` says, from a thread of its own: whoever asks waits no longer than the budget, then cancels."""
        question = _Question(rows, Future())
        self._queue.put(question)
        return question.answer

    def ask_and_wait(self, rows: Rows) -> Scores | None:
        """What `ask_now` says, wherever it is asked; waits no longer than the budget."""
        if self.is_quick:
            return self.ask_now(rows)
        answer = self.ask(rows)
        wait([answer], self.budget_seconds)
        return answer.result() if not answer.cancel() and answer.done() else None

    def note(self, *, answered: bool) -> None:
        """Whether a caller got an answer; several without in a row, and nobody is sent here."""
        if answered:
            if self._failures >= FAILURES_IN_A_ROW:
                self._say("answers again")
            self._failures = 0
            return
        self._failures += 1
        if self._failures == FAILURES_IN_A_ROW:
            self._say("failed several callers in a row; production answers for it")
        if self._failures >= FAILURES_IN_A_ROW:
            self._cut_until = monotonic() + PROBE_SECONDS

    def _say(self, what: str) -> None:
        """A line when callers are kept from it, and when they are sent to it again; not one for each of them."""
        about = {"model": self.bundle.contract.model, "bundle_digest": self.bundle.digest}
        _LOGGER.warning("a version on trial %s", what, extra=about)

    def is_cut(self) -> bool:
        """Whether a request goes to production at once; False once in a while, to see whether it is mended."""
        if self._failures < FAILURES_IN_A_ROW:
            return False
        if monotonic() < self._cut_until:
            return True
        self._cut_until = monotonic() + PROBE_SECONDS
        return False

    def shadow(self, shadows: Sequence[Shadow]) -> None:
        """Score requests that another arm answered, a moment later; they are skipped while too many wait."""
        if self._closing or len(self._shadows) + len(shadows) > MOST_SHADOWS_WAITING:
            self._skipped(len(shadows))
            return
        self._shadows.extend(shadows)
        if not self._shadows_come.is_set():
            self._shadows_come.set()

    def close(self, *, seconds: float = 0.0) -> None:
        """End the threads once what waits is done, and wait so long for each."""
        self._closing = True
        self._queue.put(None)
        self._shadows_come.set()
        for thread in self._threads:
            thread.join(seconds)

    def _started(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"boucle-trial{work.__name__}", daemon=True)
        thread.start()
        return thread

    def _was_quick(self, rows: Rows) -> bool:
        """Whether it answers at once; the best of a few tries, for the machine may be busy."""
        tries = []
        for _ in range(_QUICK_TRIES):
            started = perf_counter()
            self._scores(self.bundle, rows)
            tries.append(perf_counter() - started)
        return min(tries) < _QUICK_SECONDS

    def _judge(self, seconds: float, rows: int) -> None:
        """Whether it is still quick. A large batch says nothing of single questions, and once may be the machine."""
        if rows <= _FEW_ROWS:
            self._slow_in_a_row = self._slow_in_a_row + 1 if seconds > _STILL_QUICK_SECONDS else 0
        if self._slow_in_a_row >= _SLOW_IN_A_ROW or seconds > self.budget_seconds:
            self.is_quick = False

    def _watch(self) -> None:
        """Tell runs that take too long to end; they do between two nodes of their graph."""
        while not self._closing or any(thread.is_alive() for thread in self._threads):
            sleep(self.budget_seconds / 4)
            for run in list(self._runs.values()):
                if perf_counter() > run.ends:
                    run.options.terminate = True

    def _scores(self, bundle: LoadedBundle, rows: Rows, *, seconds: float = 0.0) -> list[float | None]:
        """A score for each row; where all together fail, each by itself, and None for those that fail alone.

        It ends after so many seconds, by default the budget, with None for each row.
        """
        run = _Run(perf_counter() + (seconds or self.budget_seconds), ort.RunOptions())
        self._runs[threading.get_ident()] = run
        try:
            scores: list[float | None] = list(bundle.scores(rows, run.options))
        except Exception:  # noqa: BLE001 - of a version on trial anything may be wrong; that it failed is what counts
            if len(rows) == 1 or run.options.terminate:
                return [None] * len(rows)
        else:
            return scores if len(scores) == len(rows) else [None] * len(rows)
        finally:
            del self._runs[threading.get_ident()]
        return [score for row in rows for score in self._scores(bundle, [row])]

    def _answer_forever(self) -> None:
        while (question := self._queue.get()) is not None:
            if question.answer.set_running_or_notify_cancel():
                started = perf_counter()
                scores = self._scores(self.bundle, question.rows)
                # What the watch ended may be here before whoever asks has counted its budget: it stalled all the same.
                question.answer.set_result(scores if perf_counter() - started <= self.budget_seconds else None)

    def _shadow_forever(self) -> None:
        while not self._closing or self._shadows:
            self._shadows_come.wait()
            sleep(_GATHER_SECONDS)
            self._shadows_come.clear()
            while self._shadows:
                self._score_some()

    def _score_some(self) -> None:
        """Score and write down some of the shadows that wait, those of one arm together."""
        some = [self._shadows.popleft() for _ in range(min(len(self._shadows), _SHADOWS_AT_ONCE))]
        try:
            for bundle in {shadow.arm.version: shadow.bundle for shadow in some}.values():
                self._write(self._scored(bundle, [shadow for shadow in some if shadow.bundle is bundle]))
        except Exception as error:  # noqa: BLE001 - the disk, or a version on trial, of which anything may be wrong
            _LOGGER.warning("%d shadow answers were not written: %s", len(some), error)
            self._skipped(len(some))

    def _scored(self, bundle: LoadedBundle, shadows: Sequence[Shadow]) -> list[ShadowFields]:
        rows = [shadow.values for shadow in shadows if shadow.values is not None]
        started = perf_counter()
        # Each row has the time that a caller would give it.
        found = iter(self._scores(bundle, rows, seconds=self.budget_seconds * len(rows)) if rows else [])
        seconds = (perf_counter() - started) / max(len(rows), 1)
        return [self._fields(shadow, None if shadow.values is None else next(found), seconds) for shadow in shadows]

    def _fields(self, shadow: Shadow, score: float | None, seconds: float) -> ShadowFields:
        output = shadow.bundle.contract.output
        usable = score is not None and output.minimum <= score <= output.maximum
        stalled = seconds > self.budget_seconds
        return ShadowFields(
            schema_version=1,
            prediction_id=shadow.prediction_id,
            at=shadow.at,
            model=shadow.plan.model,
            model_version=shadow.arm.version,
            bundle_digest=shadow.arm.bundle_digest,
            plan_revision=shadow.plan.revision,
            proba=score if usable and not stalled else None,
            error="stalled" if stalled else None if usable else "failed",
            latency_ms=seconds * 1_000,
            replica=self._replica,
        )
