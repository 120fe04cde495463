"""The figures of a shadow report, from pairs of answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.shadow_report import Latency, ShadowFigures, ShadowReport, ShadowSlice
from boucle.stats.sequential import Difference, Sample, information_needed, interval, mean_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
HALF = 0.5
ALPHA, NOTED_SHIFT, MIN_ENTITIES = 0.05, 0.1, 100
"""Intervals hold at every look with 95 %, are narrowest where a shift of 0.1 standard deviations shows, and are not
given for fewer entities: a standard error says nothing before."""


@dataclass(frozen=True, kw_only=True)
class Shadowed:
    """Requests that production answered and the challenger was to score, one place each.

    `challenger` is NaN where it gave no answer; `stalled` says that this was for the time. `entity` is equal for
    requests of one entity; they are in the order of their answers.
    """

    production: Floats
    challenger: Floats
    stalled: Flags
    entity: NDArray[np.int64]
    production_ms: Floats
    challenger_ms: Floats

    def where(self, some: Flags) -> "Shadowed":
        """Some of the requests."""
        return Shadowed(**{one.name: getattr(self, one.name)[some] for one in fields(self)})


def shadow_report(
    model: ModelName,
    shadowed: Shadowed,
    *,
    production: ModelVersion,
    challenger: ModelVersion,
    features: Mapping[str, Floats],
    bins: int = 4,
) -> ShadowReport:
    """The figures of all requests, and by slices of features.

    Args:
        model: That is asked.
        shadowed: The requests.
        production: The version that answered.
        challenger: The version that shadowed.
        features: Values by name, one for each request; NaN is missing.
        bins: Slices of a feature, by its quantiles; fewer where many values are equal.
    """
    return ShadowReport(
        model=model,
        production=production,
        challenger=challenger,
        figures=shadow_figures(shadowed),
        production_latency=latency(shadowed.production_ms),
        challenger_latency=latency(shadowed.challenger_ms),
        slices=tuple(
            ShadowSlice(feature=name, low=low, high=high, figures=shadow_figures(shadowed.where(some)))
            for name, values in features.items()
            for low, high, some in quantile_slices(values, bins)
        ),
    )


def shadow_figures(shadowed: Shadowed) -> ShadowFigures:
    """How far the challenger's answers are from production's."""
    answered = np.isfinite(shadowed.challenger)
    both = shadowed.where(answered)
    stalled = int(shadowed.stalled.sum())
    counted = ShadowFigures(
        requests=len(answered), failed=int((~answered).sum()) - stalled, stalled=stalled, pairs=int(answered.sum())
    )
    if not counted.pairs:
        return counted
    sides = (both.challenger >= HALF) != (both.production >= HALF)
    _, first = np.unique(both.entity, return_index=True)
    found = {
        "disagreement": float(sides.mean()),
        "mean_difference": float(np.abs(both.challenger - both.production).mean()),
        "entities": len(first),
    }
    return counted.model_copy(update=found | _shift(both.challenger[first], both.production[first]))


def latency(milliseconds: Floats) -> Latency | None:
    """Median and 99th percentile; None of none."""
    if not len(milliseconds):
        return None
    p50, p99 = np.quantile(milliseconds, (0.5, 0.99))
    return Latency(p50_ms=float(p50), p99_ms=float(p99))


def quantile_slices(values: Floats, bins: int) -> Iterator[tuple[float | None, float | None, Flags]]:
    """Low, high and members of each slice: about as many in each of the bins, and those without a value, if any.

    >>> [(low, high, some.tolist()) for low, high, some in quantile_slices(np.array([1.0, 2.0, 9.0]), 2)]
    [(1.0, 2.0, [True, False, False]), (2.0, 9.0, [False, True, True])]
    """
    known = values[~np.isnan(values)]
    if len(known):
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
        ends = edges[1:] if len(edges) > 1 else edges
        for low, high in zip(edges, ends, strict=False):
            yield float(low), float(high), (values >= low) & ((values < high) | (high == edges[-1]))
    if len(known) < len(values):
        yield None, None, np.isnan(values)


def _shift(challenger: Floats, production: Floats) -> dict[str, float]:
    """In standard deviations of production's scores, of pairs: the variance that both share drops out."""
    deviation = float(production.std())
    if len(production) < MIN_ENTITIES or deviation == 0:
        return {}
    apart = (challenger - production) / deviation
    found = mean_of(Sample(n=len(apart), mean=float(apart.mean()), variance=float(apart.var())))
    if found is None:  # all are equally far apart, as equal models are
        return {"shift": float(apart.mean())}
    low, high = _interval(found)
    return {"shift": found.estimate, "shift_low": low, "shift_high": high}


def _interval(found: Difference) -> tuple[float, float]:
    return interval(found, alpha=ALPHA, planned_information=information_needed(NOTED_SHIFT, alpha=ALPHA, power=0.9))
