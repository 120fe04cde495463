"""What replicas have answered since they started, read from their own metrics over HTTP."""

import urllib.request
from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.ports import StateStore

READ_TIMEOUT_SECONDS = 1.0
MODEL_ERROR = "500"
"""The version answered, and what it said was no answer. Other errors of the 500s are not the version's own."""
CLIENT_LEFT = "499"


def read_counts(
    state: StateStore,
    model: ModelName,
    version: ModelVersion,
    *,
    slow_seconds: float,
    replica_timeout_seconds: float,
) -> dict[str, ServiceFacts]:
    """Of each live replica that can be reached, what the version answered since the replica started."""
    addresses = state.addresses(max_age_seconds=replica_timeout_seconds)
    found = {}
    for name, address in sorted(addresses.items()):
        text = _metrics_of(address)
        if text is not None:
            found[name] = counts_of(text, model, version, slow_seconds=slow_seconds)
    return found


def counts_of(text: str, model: ModelName, version: ModelVersion, *, slow_seconds: float) -> ServiceFacts:
    """The counts of one version in the exposition format of Prometheus; zeros where it answered nothing."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if (labels.get("model"), labels.get("version")) != (model, str(version)):
                continue
            if sample.name == "boucle_requests_total" and labels["code"] != CLIENT_LEFT:
                counts["requests"] += int(sample.value)
                counts["failed"] += int(sample.value) if labels["code"] == MODEL_ERROR else 0
            elif sample.name == "boucle_request_duration_seconds_count":
                counts["slow"] += int(sample.value)
            elif sample.name.endswith("_duration_seconds_bucket") and float(labels["le"]) == slow_seconds:
                counts["slow"] -= int(sample.value)
    return ServiceFacts(requests=counts["requests"], failed=counts["failed"], slow=counts["slow"])


def since(now: Mapping[str, ServiceFacts], before: Mapping[str, ServiceFacts]) -> ServiceFacts:
    """What was answered in between, over all replicas; one that started anew counts from its start."""
    requests = failed = slow = 0
    for name, counted in now.items():
        base = before.get(name)
        if base is None or base.requests > counted.requests:
            base = ServiceFacts(requests=0, failed=0, slow=0)
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
