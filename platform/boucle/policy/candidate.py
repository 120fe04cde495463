"""Is there a candidate worth judging? Gates over its training set, and over the fitted and exported model."""

from collections.abc import Iterable

from boucle.contracts.facts import ParityFacts, TrainingFacts
from boucle.contracts.verdict import Bound, Gate
from boucle.policy import gates
from boucle.policy.limits import GateLimit

PARITY_LIMIT = 1e-9
"""Largest difference in probability between estimator and export: rounding gives 1e-15, another branch 1e-3."""

_MEASURED_AS = "Measured as"
_LATE_LABELS = GateLimit(limit=0, unit="labels known too late")
_PARITY = GateLimit(limit=PARITY_LIMIT, unit="probability")
TRAINING_MEANINGS = {
    "labels_are_mature": "Every training label was known before the holdout begins.",
    "enough_rows": "There are enough training rows to fit on.",
    "enough_positives": "There are enough positive labels to fit on, and to judge by.",
}
"""The gates of a training set, in order, and what each asks."""
CANDIDATE_MEANINGS = {
    "bundle_equals_estimator": "The exported model answers as the estimator does, on real rows and at every threshold.",
    "within_compute_budget": "Fitting stayed within its budget of CPU seconds.",
}
"""The gates of a fitted and exported model, in order, and what each asks."""


def training_gates(facts: TrainingFacts, *, min_rows: int, min_positives: int) -> tuple[Gate, ...]:
    """The gates of `TRAINING_MEANINGS`; `min_positives` is asked of training and holdout each."""
    rows, limits = facts.train_rows + facts.holdout_rows, _training_limits(min_rows, min_positives)
    positives = min(facts.train_positives, facts.holdout_positives)
    return (
        gates.at_most(
            "labels_are_mature", facts.late_labels, limits["labels_are_mature"], sample_size=facts.train_rows
        ),
        gates.at_least("enough_rows", facts.train_rows, limits["enough_rows"], sample_size=rows),
        gates.at_least("enough_positives", positives, limits["enough_positives"], sample_size=rows),
    )


def bundle_equals_estimator(facts: ParityFacts) -> Gate:
    """The exported model answers as the estimator does, on real rows and on and around every threshold."""
    return gates.at_most(
        "bundle_equals_estimator",
        facts.max_difference,
        _PARITY,
        sample_size=facts.rows,
        detail=f"{facts.probes} of the rows probe thresholds, missing and huge values.",
    )


def within_compute_budget(cpu_seconds: float, limit: GateLimit) -> Gate:
    """The fit took at most its budget of processor time."""
    return gates.in_mode(gates.at_most("within_compute_budget", cpu_seconds, limit, sample_size=1), limit.mode)


def gates_of_elsewhere(
    measured: Iterable[Gate], *, min_rows: int, min_positives: int, budget: GateLimit, origin: str
) -> tuple[Gate, ...]:
    """Gates of training set and candidate that only who made the version could measure, judged by the limits of here.

    Args:
        measured: The evidence of there; gates of an evaluation are left out, as they are measured again.
        min_rows: As for `training_gates`.
        min_positives: As for `training_gates`.
        budget: As for `within_compute_budget`.
        origin: Where they were measured, in words.
    """
    limits = {
        **_training_limits(min_rows, min_positives),
        "bundle_equals_estimator": _PARITY,
        "within_compute_budget": budget,
    }
    return tuple(_judged_again(gate, limits[gate.name], origin) for gate in measured if gate.name in limits)


def _training_limits(min_rows: int, min_positives: int) -> dict[str, GateLimit]:
    return {
        "labels_are_mature": _LATE_LABELS,
        "enough_rows": GateLimit(limit=min_rows, unit="rows"),
        "enough_positives": GateLimit(limit=min_positives, unit="positive labels in the smaller part"),
    }


def _judged_again(gate: Gate, limit: GateLimit, origin: str) -> Gate:
    judge = gates.at_most if gate.bound is Bound.AT_MOST else gates.at_least
    detail = f"{gate.detail.partition(_MEASURED_AS)[0].strip()} {_MEASURED_AS} {origin}.".strip()
    again = judge(gate.name, gate.measured, limit, sample_size=gate.sample_size, detail=detail)
    return gates.in_mode(again, limit.mode)
