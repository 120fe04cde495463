"""Metrics that are made while they are scraped: each source is read anew, and one that cannot be read says so."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from boucle.errors import BoucleError

_LOGGER = logging.getLogger("boucle.exporter")
UP = "boucle_exporter_up"
UNREADABLE = (BoucleError, OSError, ValueError)
"""What a source raises that is away or holds something else than it should (pydantic's errors are ValueErrors)."""


class Kind(StrEnum):
    """How samples of a family with the same labels become one."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A metric: its name without `_total`, what it says, its labels; upper bounds if it is a histogram."""

    name: str
    text: str
    labels: tuple[str, ...]
    kind: Kind = Kind.GAUGE
    bounds: tuple[float, ...] = ()


class Sample(NamedTuple):
    """A value: of a gauge, to be added to a counter, or one observation of a histogram; None: it has none yet.

    A histogram that appears with its first observation shows Prometheus no increase, so it is shown empty before.
    """

    family: Family
    labels: tuple[str, ...]
    value: float | None


class Source(NamedTuple):
    """Where samples come from, by a name and the model it is about (empty: all of them)."""

    name: str
    model: str
    read: Callable[[], Sequence[Sample]]


class ReadAtScrape(Collector):
    """Reads every source when it is asked, keeps nothing, and says which ones could not be read.

    The metrics of a source that cannot be read are absent, never zero: `boucle_exporter_up` is 0 for it.
    """

    def __init__(self, sources: Callable[[], Sequence[Source]]) -> None:
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Nothing, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All that can be read now."""
        up = GaugeMetricFamily(UP, "1 if the source could be read at this scrape", labels=("source", "model"))
        samples: list[Sample] = []
        for source in self._sources():
            found = _read(source)
            samples += found or ()
            up.add_metric((source.name, source.model), float(found is not None))
        yield up
        for family, values in _by_family(samples).items():
            yield _metric(family, values)


def _read(source: Source) -> Sequence[Sample] | None:
    try:
        return source.read()
    except UNREADABLE as error:
        _LOGGER.warning("%s %s cannot be read: %s", source.name, source.model, error)
        return None


def _by_family(samples: Sequence[Sample]) -> dict[Family, dict[tuple[str, ...], list[float]]]:
    families: dict[Family, dict[tuple[str, ...], list[float]]] = {}
    for sample in samples:
        values = families.setdefault(sample.family, {}).setdefault(sample.labels, [])
        values += [] if sample.value is None else [sample.value]
    return families


def _metric(family: Family, values: Mapping[tuple[str, ...], list[float]]) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        for labels, observed in values.items():
            histogram.add_metric(labels, _buckets(family.bounds, observed), sum(observed))
        return histogram
    if family.kind is Kind.COUNTER:
        counter = CounterMetricFamily(family.name, family.text, labels=family.labels)
        for labels, added in values.items():
            counter.add_metric(labels, sum(added))
        return counter
    gauge = GaugeMetricFamily(family.name, family.text, labels=family.labels)
    for labels, seen in values.items():
        if seen:
            gauge.add_metric(labels, seen[-1])
    return gauge


def _buckets(bounds: Sequence[float], observed: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound; the bound itself is inside."""
    counts = [float(sum(value <= bound for value in observed)) for bound in bounds]
    return [*zip(map(str, bounds), counts, strict=True), ("+Inf", float(len(observed)))]
