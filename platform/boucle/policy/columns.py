"""Every statistic of every column of a window, for people: what drifted, by how much, and whether it is sure."""

from collections.abc import Sequence

from boucle.contracts.facts import LiveFacts
from boucle.contracts.monitoring import ColumnDrift, DriftStatistic, StatisticName
from boucle.contracts.profile import ColumnProfile
from boucle.contracts.verdict import Verdict
from boucle.policy.monitoring import MonitoringPolicy
from boucle.stats.distance import kolmogorov_smirnov, wasserstein
from boucle.stats.drift import chi_square, jensen_shannon, psi_null_mean, psi_statistic
from boucle.stats.multiplicity import holm

SCORES = "scores"


def column_drifts(policy: MonitoringPolicy, facts: LiveFacts) -> tuple[ColumnDrift, ...]:
    """The scores and the features, those that matter most first; a column without values is left out.

    The limits of the statistics hold for all columns together (Bonferroni), the verdicts as well (Holm).
    """
    pairs = {SCORES: (facts.reference.score_column, facts.scores)}
    by_importance = sorted(facts.features, key=lambda name: -facts.reference.importance[name])
    pairs |= {name: (facts.reference.columns[name], facts.features[name]) for name in by_importance}
    used = {name: pair for name, pair in pairs.items() if pair[0].total and pair[1].total}
    level = 1 - policy.max_false_alarms / max(len(used), 1)
    found = {name: column_statistics(*pair, level=level) for name, pair in used.items()}
    p_values = {
        name: statistic.p_value
        for name, statistics in found.items()
        for statistic in statistics
        if statistic.name is StatisticName.CHI_SQUARE and statistic.p_value is not None
    }
    sure = holm(p_values, level=policy.max_false_alarms)
    return tuple(
        ColumnDrift(
            column=name,
            importance=None if name == SCORES else facts.reference.importance[name],
            verdict=_verdict(policy, *used[name], statistics[0].value, is_sure=name in sure),
            statistics=statistics,
        )
        for name, statistics in found.items()
    )


def feature_psi(columns: Sequence[ColumnDrift]) -> dict[str, float]:
    """PSI of each feature, those that matter most first."""
    return {column.column: column.statistics[0].value for column in columns if column.column != SCORES}


def column_statistics(reference: ColumnProfile, current: ColumnProfile, *, level: float) -> tuple[DriftStatistic, ...]:
    """PSI first, Jensen-Shannon and chi-square; along the axis too, unless the values are places in a list of names."""
    statistics: list[DriftStatistic | None] = [
        psi_statistic(reference, current, level=level),
        jensen_shannon(reference, current, level=level),
        chi_square(reference, current, level=level),
    ]
    if reference.categories is None or reference.categories.is_ordered:
        statistics += [kolmogorov_smirnov(reference, current, level=level), wasserstein(reference, current)]
    return tuple(statistic for statistic in statistics if statistic is not None)


def _verdict(
    policy: MonitoringPolicy, reference: ColumnProfile, current: ColumnProfile, psi: float, *, is_sure: bool
) -> Verdict:
    if current.worth < policy.min_predictions:
        return Verdict.INCONCLUSIVE
    if psi - psi_null_mean(reference, current) <= policy.max_column_psi:
        return Verdict.PASSED
    return Verdict.FAILED if is_sure else Verdict.INCONCLUSIVE
