"""A gate: one measured value against one limit, with three possible answers."""

from collections.abc import Sequence
from enum import StrEnum

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

    def sentence(self) -> str:
        """`figures`, and the detail where there is one."""
        return f"{self.figures()}. {self.detail}" if self.detail else self.figures()

    def figures(self) -> str:
        """`log_loss: passed (measured 0.218 nats, at most 0.3 nats, n=23502)`."""
        measured = "nothing" if self.measured is None else f"{self.measured:.4g} {self.unit}"
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return (
            f"{self.name}: {self.verdict} (measured {measured}{interval}, "
            f"{self.bound} {self.limit:.4g} {self.unit}, n={self.sample_size})"
        )


def overall(gates: tuple[Gate, ...]) -> Verdict:
    """The verdict over all gates: one failed fails all; else one inconclusive holds all; no gate is inconclusive."""
    verdicts = {gate.verdict for gate in gates}
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
