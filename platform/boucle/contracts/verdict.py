"""A gate: one measured value against one limit, with three possible answers."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from boucle.contracts.document import Document


class Verdict(StrEnum):
    """What a gate says. `inconclusive` is not a pass: the data does not allow an answer."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class Bound(StrEnum):
    """Which side of the limit passes; the limit itself passes."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


class GateMode(StrEnum):
    """What a gate that does not pass does: it blocks, it only warns, or nobody looks (it is switched off)."""

    BLOCK = "block"
    WARN = "warn"
    OFF = "off"


class Gate(Document):
    """One measured value, its limit, unit and sample size, and the verdict; they always travel together.

    `measured` is None when nothing could be measured (then the verdict is never `passed`).
    `low` and `high` are the ends of the confidence interval of `measured`, where there is one.
    `detail` says in one sentence what the number does not.
    """

    name: str
    verdict: Verdict
    measured: float | None
    bound: Bound
    limit: float
    unit: str
    sample_size: int
    low: float | None = None
    high: float | None = None
    detail: str = ""
    mode: GateMode = GateMode.BLOCK

    @model_serializer(mode="wrap")
    def _as_ever(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A gate that blocks is written as before there were others: digests of evidence stay what they were."""
        written: dict[str, Any] = write(self)
        return written if self.mode is not GateMode.BLOCK else {k: v for k, v in written.items() if k != "mode"}

    def sentence(self) -> str:
        """`figures`, and the detail where there is one."""
        return f"{self.figures()}. {self.detail}" if self.detail else self.figures()

    def used(self) -> float | None:
        """How much of its limit is used, whichever side passes: 1 at the limit, more beyond it; None if unknown.

        A share of which nothing is left where some must be is infinitely far beyond it. A limit below 0 is the lower
        one of two (`within`), and is used as one above 0 is.
        """
        if self.measured is None or self.limit == 0:
            return None
        if self.bound is Bound.AT_LEAST and self.limit > 0:
            return self.limit / self.measured if self.measured > 0 else math.inf
        return self.measured / self.limit

    def figures(self) -> str:
        """`log_loss: passed (measured 0.218 nats, at most 0.3 nats, n=23502)`; a mode other than `block` is named."""
        if self.mode is GateMode.OFF:
            return f"{self.name}: switched off ({self.bound} {self.limit:.4g} {self.unit} is not asked)"
        measured = "nothing" if self.measured is None else f"{self.measured:.4g} {self.unit}"
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        warns = ", only warns" if self.mode is GateMode.WARN else ""
        return (
            f"{self.name}: {self.verdict}{warns} (measured {measured}{interval}, "
            f"{self.bound} {self.limit:.4g} {self.unit}, n={self.sample_size})"
        )


def overall(gates: tuple[Gate, ...]) -> Verdict:
    """Over all gates that block: one failed fails all; else one inconclusive holds all; no gate is inconclusive."""
    verdicts = {gate.verdict for gate in gates if gate.mode is GateMode.BLOCK}
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    if not verdicts or Verdict.INCONCLUSIVE in verdicts:
        return Verdict.INCONCLUSIVE
    return Verdict.PASSED


def worst(gates: Sequence[Gate]) -> Gate:
    """Of several gates of one kind the one that decides: the last failed, else the last inconclusive, else the last.

    Raises:
        ValueError: There is none.
    """
    if not gates:
        raise ValueError("There is no gate to choose from.")
    verdict = overall(tuple(gates))
    return next(gate for gate in reversed(gates) if gate.verdict is verdict)
