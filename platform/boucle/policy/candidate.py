"""Is there a candidate worth judging? Gates over its training set, and over the fitted and exported model."""

from boucle.contracts.facts import ParityFacts, TrainingFacts
from boucle.contracts.verdict import Gate
from boucle.policy import gates
from boucle.policy.limits import GateLimit

PARITY_LIMIT = 1e-9
"""Largest difference in probability between estimator and export: rounding gives 1e-15, another branch 1e-3."""

_LATE_LABELS = GateLimit(limit=0, unit="labels known too late")
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
    rows = facts.train_rows + facts.holdout_rows
    positives = min(facts.train_positives, facts.holdout_positives)
    return (
        gates.at_most("labels_are_mature", facts.late_labels, _LATE_LABELS, sample_size=facts.train_rows),
        gates.at_least("enough_rows", facts.train_rows, GateLimit(limit=min_rows, unit="rows"), sample_size=rows),
        gates.at_least(
            "enough_positives",
            positives,
            GateLimit(limit=min_positives, unit="positive labels in the smaller part"),
            sample_size=rows,
        ),
    )


def bundle_equals_estimator(facts: ParityFacts) -> Gate:
    """The exported model answers as the estimator does, on real rows and on and around every threshold."""
    return gates.at_most(
        "bundle_equals_estimator",
        facts.max_difference,
        GateLimit(limit=PARITY_LIMIT, unit="probability"),
        sample_size=facts.rows,
        detail=f"{facts.probes} of the rows probe thresholds, missing and huge values.",
    )


def within_compute_budget(cpu_seconds: float, limit: GateLimit) -> Gate:
    """The fit took at most its budget of processor time."""
    return gates.in_mode(gates.at_most("within_compute_budget", cpu_seconds, limit, sample_size=1), limit.mode)
