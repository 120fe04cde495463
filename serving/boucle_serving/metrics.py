"""What a replica tells Prometheus. Base units; no user, entity or request in a label."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.measuring import CLIENT_LEFT, LATENCY_BOUNDS_SECONDS, MODEL_ERROR, whole

_ANSWER = ("model", "version", "route")
_WEIGHT = ("model", "version")
_Answer = tuple[str, str, str]


class _Rows(NamedTuple):
    """Rows with one code, and the calls that they came in: a call is one, shared out among the codes of its rows."""

    rows: int
    calls: float


_NO_ROWS = _Rows(0, 0.0)


class ServingMetrics:
    """The metrics of one app, in a registry of its own, so that two apps in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # when it started, memory, processor time, open files
        self.plan_revision = self._gauge("boucle_plan_revision", "Revision of the traffic plan served", ("model",))
        self.plan_wanted = self._gauge("boucle_plan_wanted_revision", "Newest revision seen", ("model",))
        self.weight = self._gauge("boucle_traffic_weight", "Share of entities, per cent", _WEIGHT)
        self.state_store_up = self._gauge("boucle_state_store_up", "1 if the last poll of the state store worked", ())
        self.load_failures = self._counter("boucle_bundle_load_failures_total", "Bundles that were refused", ("model",))
        self.logged = self._counter("boucle_prediction_log_records_total", "Predictions written", ("model",))
        self.dropped = self._counter("boucle_prediction_log_dropped_total", "Predictions that could not be", ("model",))
        self.refused = self._counter("boucle_refused_requests_total", "Requests that were not let in", ("reason",))
        self.shadow_skipped = self._counter("boucle_shadow_skipped_total", "Shadows that were not scored", ("model",))
        self.guard_breached = self._gauge("boucle_guard_breached", "1 while an objective is surely missed", ("model",))
        self.guard_held = self._gauge("boucle_guard_held", "1 while a breach cannot be undone", ("model",))
        self.guard_rollbacks = self._counter("boucle_guard_rollbacks_total", "Promotions undone here", ("model",))
        self._answers = _Answers()
        self.registry.register(self._answers)

    def observe(self, model: str, version: str, route: str, code: int, seconds: float) -> None:
        """Count one prediction request and its time."""
        self._answers.add((model, version, route), code, 1, seconds)

    def observe_rows(self, model: str, counts: Mapping[tuple[str, str, int], int], seconds: float) -> None:
        """Count the rows of one request by (version, route, code), and its time once for each version and route."""
        rows_of: dict[_Answer, dict[int, int]] = {}
        for (version, route, code), rows in counts.items():
            rows_of.setdefault((model, version, route), {})[code] = rows
        for answer, codes in rows_of.items():
            self._answers.add_rows(answer, codes, seconds)

    def counted(self, model: ModelName, version: ModelVersion, *, slow_seconds: float) -> ServiceFacts:
        """What a version answered since this process started, each call once; any thread may ask.

        Args:
            model: Of which.
            version: Which of it.
            slow_seconds: A bound of the histogram of durations; beyond it a request is slow.
        """
        return self._answers.counted(model, str(version), slow_from=LATENCY_BOUNDS_SECONDS.index(slow_seconds) + 1)

    def text(self) -> bytes:
        """The exposition format that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


class _Answers(Collector):
    """Requests by code and durations by bucket, for each (model, version, route): plain numbers, one thread writes.

    The library's own counters take a lock for each of them, which costs more than the look-up of the features.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[_Answer, int], int] = {}
        """Those that came by themselves."""
        self._rows: dict[tuple[_Answer, int], _Rows] = {}
        """Those that came as rows of a call; written at once, for another thread reads."""
        self._buckets: dict[_Answer, list[int]] = {}
        self._seconds: dict[_Answer, float] = {}

    def add(self, answer: _Answer, code: int, requests: int, seconds: float) -> None:
        """So many requests of their own, and the time of one answer."""
        self._requests[answer, code] = self._requests.get((answer, code), 0) + requests
        buckets = self._buckets.get(answer)
        if buckets is None:
            buckets = self._buckets[answer] = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        buckets[bisect_left(LATENCY_BOUNDS_SECONDS, seconds)] += 1
        self._seconds[answer] = self._seconds.get(answer, 0.0) + seconds

    def add_rows(self, answer: _Answer, codes: Mapping[int, int], seconds: float) -> None:
        """The rows of one call by code, and the time of the call."""
        total, code = sum(codes.values()), 0
        for code, rows in codes.items():
            was = self._rows.get((answer, code), _NO_ROWS)
            self._rows[answer, code] = _Rows(was.rows + rows, was.calls + rows / total)
            self._requests.setdefault((answer, code), 0)
        self.add(answer, code, 0, seconds)

    def counted(self, model: str, version: str, *, slow_from: int) -> ServiceFacts:
        """The calls of one version over its routes; slow are those in the buckets from this one on."""
        slow = sum(
            sum(buckets[slow_from:])
            for (of, by, _), buckets in list(self._buckets.items())
            if (of, by) == (model, version)
        )
        asked = [
            (code, found.calls)
            for ((of, by, _), code), found in self._counts()
            if (of, by) == (model, version) and code != CLIENT_LEFT
        ]
        return ServiceFacts(
            requests=whole(sum(calls for _, calls in asked)),
            failed=whole(sum(calls for code, calls in asked if code == MODEL_ERROR)),
            slow=slow,
        )

    def collect(self) -> Iterator[Metric]:
        """All families as Prometheus knows them; any thread may ask."""
        duration = HistogramMetricFamily(
            "boucle_request_duration_seconds",
            "From the first byte of a prediction request to its answer",
            labels=_ANSWER,
        )
        bounds = [*map(str, LATENCY_BOUNDS_SECONDS), "+Inf"]
        for answer, buckets in list(self._buckets.items()):
            cumulative = list(zip(bounds, accumulate(buckets), strict=True))
            duration.add_metric(answer, cumulative, self._seconds.get(answer, 0.0))
        yield duration
        requests = CounterMetricFamily("boucle_requests_total", "Predictions asked for", labels=(*_ANSWER, "code"))
        calls = CounterMetricFamily("boucle_calls_total", "Calls, one of several rows once", labels=(*_ANSWER, "code"))
        for (answer, code), found in self._counts():
            requests.add_metric((*answer, str(code)), found.rows)
            calls.add_metric((*answer, str(code)), found.calls)
        yield from (requests, calls)

    def _counts(self) -> Iterator[tuple[tuple[_Answer, int], _Rows]]:
        for key, requests in list(self._requests.items()):
            came = self._rows.get(key, _NO_ROWS)
            yield key, _Rows(requests + came.rows, requests + came.calls)
