"""What replicas have answered since they started, read from their own metrics over HTTP."""

import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.ports import StateStore

READ_TIMEOUT_SECONDS = 1.0
MODEL_ERROR = "500"
"""The version answered, and what it said was no answer. Other errors of the 500s are not the version's own."""
CLIENT_LEFT = "499"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one version answered in one process of a replica since that process started, in seconds since the epoch."""

    started: float
    facts: ServiceFacts


NOTHING = ServiceFacts(requests=0, failed=0, slow=0)


def read_counts(
    state: StateStore,
    model: ModelName,
    version: ModelVersion,
    *,
    slow_seconds: float,
    replica_timeout_seconds: float,
) -> dict[str, Counted]:
    """Of each live replica that can be reached, what the version answered since the replica's process started."""
    addresses = state.addresses(max_age_seconds=replica_timeout_seconds)
    found = {}
    for name, address in sorted(addresses.items()):
        text = _metrics_of(address)
        if text is not None:
            found[name] = counts_of(text, model, version, slow_seconds=slow_seconds)
    return found


def counts_of(text: str, model: ModelName, version: ModelVersion, *, slow_seconds: float) -> Counted:
    """The counts of one version in the exposition format of Prometheus; zeros where it answered nothing."""
    counts: Counter[str] = Counter()
    started = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "process_start_time_seconds":
                started = sample.value
            if (labels.get("model"), labels.get("version")) != (model, str(version)):
                continue
            if sample.name == "boucle_requests_total" and labels["code"] != CLIENT_LEFT:
                counts["requests"] += int(sample.value)
                counts["failed"] += int(sample.value) if labels["code"] == MODEL_ERROR else 0
            elif sample.name == "boucle_request_duration_seconds_count":
                counts["slow"] += int(sample.value)
            elif sample.name.endswith("_duration_seconds_bucket") and float(labels["le"]) == slow_seconds:
                counts["slow"] -= int(sample.value)
    facts = ServiceFacts(requests=counts["requests"], failed=counts["failed"], slow=counts["slow"])
    return Counted(started=started, facts=facts)


def since(now: Mapping[str, Counted], before: Mapping[str, Counted]) -> ServiceFacts:
    """What was answered in between, over the replicas that were counted at both moments.

    A process that started in between counts from its start. A replica that was not counted before says nothing: how
    much of its count is from before is not known.
    """
    requests = failed = slow = 0
    for name in now.keys() & before.keys():
        counted, base = now[name].facts, before[name].facts
        if now[name].started != before[name].started:
            base = NOTHING
        requests += counted.requests - base.requests
        failed += counted.failed - base.failed
        slow += counted.slow - base.slow
    return ServiceFacts(requests=requests, failed=failed, slow=slow)


def _metrics_of(address: str) -> str | None:
    try:
        with urllib.request.urlopen(  # noqa: S310 - an address from our own table
            f"{address}/metrics", timeout=READ_TIMEOUT_SECONDS
        ) as response:
            return str(response.read(), "utf-8")
    except (OSError, ValueError):
        return None
