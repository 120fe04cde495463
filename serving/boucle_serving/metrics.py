"""What a replica tells Prometheus. Base units; no user, entity or request in a label."""

from collections.abc import Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from boucle.contracts.measuring import LATENCY_BOUNDS_SECONDS

_ANSWER = ("model", "version", "route")
_WEIGHT = ("model", "version")


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
        self._duration = Histogram(
            "boucle_request_duration_seconds",
            "From the first byte of a prediction request to its answer",
            _ANSWER,
            buckets=LATENCY_BOUNDS_SECONDS,
            registry=self.registry,
        )
        self._requests = self._counter("boucle_requests_total", "Predictions asked for", (*_ANSWER, "code"))
        # `labels()` takes a lock and builds a key; a handful of combinations is all there ever is.
        self._children = lru_cache(maxsize=1024)(self._label)

    def observe(self, model: str, version: str, route: str, code: int, seconds: float) -> None:
        """Count one prediction request and its time."""
        requests, duration = self._children(model, version, route, str(code))
        requests.inc()
        duration.observe(seconds)

    def observe_rows(self, model: str, counts: Mapping[tuple[str, str, int], int], seconds: float) -> None:
        """Count the rows of one request by (version, route, code), and its time once for each of these."""
        for (version, route, code), rows in counts.items():
            requests, duration = self._children(model, version, route, str(code))
            requests.inc(rows)
            duration.observe(seconds)

    def text(self) -> bytes:
        """The exposition format that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _label(self, model: str, version: str, route: str, code: str) -> tuple[Counter, Histogram]:
        return self._requests.labels(model, version, route, code), self._duration.labels(model, version, route)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
