"""What replicas have answered since they started, read from their own metrics over HTTP."""

import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.measuring import CLIENT_LEFT, MODEL_ERROR, whole
from boucle.policy.burn import Seen
from boucle.ports import StateStore

READ_TIMEOUT_SECONDS = 1.0
FULL = "concurrency"
"""The reason with which a full replica turns a request away."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one version answered in one process of a replica since that process started, in seconds since the epoch."""

    started: float
    facts: ServiceFacts


NOTHING = ServiceFacts(requests=0, failed=0, slow=0)
_NAMES = tuple(field.name for field in fields(ServiceFacts))


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
        if text is None:
            continue
        try:
            found[name] = counts_of(text, model, version, slow_seconds=slow_seconds)
        except ValueError:  # whoever answers there is no replica, or one of an earlier release
            continue
    return found


def counts_of(text: str, model: ModelName, version: ModelVersion, *, slow_seconds: float) -> Counted:
    """The counts of one version in the exposition format of Prometheus; zeros where it answered nothing.

    Raises:
        ValueError: It is no such text, or it does not count calls.
    """
    counts: dict[str, float] = dict.fromkeys(_NAMES, 0)
    started, is_counting = 0.0, False
    for family in text_string_to_metric_families(text):
        is_counting = is_counting or family.name == "boucle_calls"
        for sample in family.samples:
            if sample.name == "process_start_time_seconds":
                started = sample.value
            found = _of_replica(sample)
            if (sample.labels.get("model"), sample.labels.get("version")) == (model, str(version)):
                found |= _of_version(sample, slow_seconds)
            for name, count in found.items():
                counts[name] += count
    if not is_counting:
        raise ValueError("There is no metric boucle_calls_total.")
    return Counted(started=started, facts=ServiceFacts(**{name: whole(count) for name, count in counts.items()}))


def since(now: Mapping[str, Counted], before: Mapping[str, Counted]) -> ServiceFacts:
    """What was answered in between, over the replicas that were counted at both moments.

    A process that started in between counts from its start. A replica that was not counted before says nothing: how
    much of its count is from before is not known.
    """
    sums: Counter[str] = Counter()
    for name in now.keys() & before.keys():
        base = _in_process(before[name], now[name].started)
        for count in _NAMES:
            sums[count] += getattr(now[name].facts, count) - getattr(base, count)
    return ServiceFacts(**{name: sums[name] for name in _NAMES})


def base_at(history: Sequence[Seen[Mapping[str, Counted]]], moment: float) -> dict[str, Counted]:
    """What each replica had counted at a moment, by the newest look until then that read it.

    One that was first read later is counted from then.
    """
    base: dict[str, Counted] = {}
    for seen in history:
        base.update({name: counts for name, counts in seen.counted.items() if name not in base or seen.at <= moment})
    return base


def leaving_out(
    history: Sequence[Seen[Mapping[str, Counted]]], now: Mapping[str, Counted]
) -> tuple[Seen[Mapping[str, Counted]], ...]:
    """The looks of a history as if nothing had been counted since the last of them.

    A replica that cannot be read now is counted from when it can be again.
    """
    last = base_at(history, history[-1].at)
    return tuple(
        Seen(
            seen.at,
            {name: _forward(then, last[name], now[name]) for name, then in seen.counted.items() if name in now},
        )
        for seen in history
    )


def _forward(then: Counted, last: Counted, now: Counted) -> Counted:
    """What a replica had counted then, and what it counted between the last look and now, of the process of now."""
    base, left = _in_process(then, now.started), _in_process(last, now.started)
    moved = {name: getattr(base, name) + getattr(now.facts, name) - getattr(left, name) for name in _NAMES}
    return Counted(started=now.started, facts=ServiceFacts(**moved))


def _in_process(counted: Counted, started: float) -> ServiceFacts:
    """Counts of the process that started then; another one's are none of its."""
    return counted.facts if counted.started == started else NOTHING


def _of_replica(sample: Sample) -> dict[str, float]:
    """What a sample says of the replica as a whole, whoever answered."""
    if sample.name == "boucle_calls_total" and sample.labels["code"] != str(CLIENT_LEFT):
        return {"asked": sample.value}
    if sample.name == "boucle_refused_requests_total" and sample.labels["reason"] == FULL:
        return {"refused": sample.value}
    return {}


def _of_version(sample: Sample, slow_seconds: float) -> dict[str, float]:
    count, labels = sample.value, sample.labels
    if sample.name == "boucle_calls_total" and labels["code"] != str(CLIENT_LEFT):
        return {"requests": count, "failed": count if labels["code"] == str(MODEL_ERROR) else 0}
    if sample.name == "boucle_request_duration_seconds_count":
        return {"slow": count}
    if sample.name == "boucle_request_duration_seconds_bucket" and float(labels["le"]) == slow_seconds:
        return {"slow": -count}
    return {}


def _metrics_of(address: str) -> str | None:
    try:
        with urllib.request.urlopen(  # noqa: S310 - an address from our own table
            f"{address}/metrics", timeout=READ_TIMEOUT_SECONDS
        ) as response:
            return str(response.read(), "utf-8")
    except (OSError, ValueError):
        return None
