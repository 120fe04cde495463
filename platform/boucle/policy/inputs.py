"""Does the input still arrive? Features that stand still or went missing: a broken source, not a world that changed."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from bisect import bisect_right

from boucle.contracts.facts import Interval, LiveFacts
from boucle.contracts.profile import ColumnProfile
from boucle.contracts.verdict import Gate, Verdict
from boucle.features.profiles import FREQUENT_SHARE
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle.stats.intervals import wilson_interval

MOST_REPEATED = 0.9
"""A feature of which the reference has one value in more than these rows is not asked: a flag that is seldom set may be
unset for a while."""


def input_frozen(facts: LiveFacts, limit: GateLimit, *, alarms: float) -> Gate:
    """The feature that varies least, against the reference; of those that surely stand still, where there are any.

    Variation is the share of rows with another value than the most common one of the window, missing rows left out.
    Failed when less than the limit is left of it, and so few such rows have a probability (binomial) of at most
    `alarms` over the number of features where the feature still varies as in the reference.
    """
    from scipy.special import bdtr

    name, found = "input_frozen", _variations(facts)
    if not found:
        detail = "No feature has a value in the window and enough different ones in the reference."
        return gates.at_least(name, None, limit, sample_size=0, detail=detail)
    left = {key: others / rows / usual for key, (others, rows, usual) in found.items()}
    # A flag that is seldom set may stand still by chance; it must not hide a feature that cannot.
    few = {key: (*_worths(facts.features[key], *counts), usual) for key, (*counts, usual) in found.items()}
    sure = [key for key in found if left[key] < limit.limit and bdtr(*few[key]) <= alarms / len(found)]
    feature = min(sure or left, key=lambda key: left[key])
    others, rows, _ = found[feature]
    detail = f"{feature} varies least: {others} of {rows} rows have another value than its most common one."
    gate = gates.at_least(name, left[feature], limit, sample_size=rows, detail=detail)
    if gate.verdict is Verdict.FAILED and not sure:
        return gates.inconclusive(gate, f"{detail} It may be chance.")
    return gate


def input_missing(facts: LiveFacts, limit: GateLimit, *, alarms: float) -> Gate:
    """The largest rise of a feature's share of missing values; failed when surely (Wilson 1927) above the limit."""
    name = "input_missing"
    if facts.predictions == 0 or not facts.features:
        return gates.at_most(name, None, limit, sample_size=0, detail="Nothing was served in this window.")
    level = 1 - alarms / len(facts.features)
    rises = {key: _rise(facts.reference.columns[key], now, level=level) for key, now in facts.features.items()}
    feature = max(rises, key=lambda key: rises[key].estimate)
    return gates.not_surely_above(name, rises[feature], limit, detail=f"{feature} rose most.")


def _variations(facts: LiveFacts) -> dict[str, tuple[int, int, float]]:
    """Of each feature that can be judged: rows without the most common value, all rows, and the reference's share."""
    found = {}
    for name, reference in facts.reference.columns.items():
        current = facts.features.get(name)
        rows = current.total - current.histogram.nulls if current else 0
        if current is None or current.details is None or rows == 0:
            continue
        common = max(current.details.frequent, key=lambda known: known.count, default=None)
        if common is None:
            # No value has a tenth of the rows: it varies as much as a feature can.
            found[name] = (rows, rows, 1.0)
            continue
        usual = 1 - _reference_share(reference, common.value)
        if usual >= 1 - MOST_REPEATED:
            found[name] = (rows - common.count, rows, usual)
    return found


def _reference_share(reference: ColumnProfile, value: float) -> float:
    """The share of the reference's rows with this value, where it is known; else no less than it can be."""
    rows = reference.total - reference.histogram.nulls
    if rows == 0:
        return 0.0
    in_bin = reference.histogram.counts[bisect_right(reference.histogram.edges, value)] / rows
    if reference.details is None:
        return in_bin
    known = next((found.count for found in reference.details.frequent if found.value == value), None)
    return min(in_bin, FREQUENT_SHARE) if known is None else known / rows


def _worths(column: ColumnProfile, some: float, rows: float) -> tuple[int, int]:
    """Some of a column's rows, and all of them, as independent ones; at least one in all."""
    return round(some / column.design_effect), max(1, round(rows / column.design_effect))


def _rise(reference: ColumnProfile, current: ColumnProfile, *, level: float) -> Interval:
    before, now = (
        wilson_interval(*_worths(side, side.histogram.nulls, side.total), level=level) for side in (reference, current)
    )
    return Interval(
        estimate=now.estimate - before.estimate,
        low=now.low - before.high,
        high=now.high - before.low,
        sample_size=current.total,
        entities=current.total,
    )
