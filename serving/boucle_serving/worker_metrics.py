"""The metrics of all workers behind one address: whichever of them is asked must not answer for itself alone."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_TIMEOUT_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The port that several workers share, and where each of them answers by itself, by name."""

    port: int
    addresses: Callable[[], Mapping[str, str]]

    async def metrics(self) -> bytes:
        """What each worker counted, with its name as the label `worker`; one that does not answer is left out."""
        addresses = self.addresses()
        texts = await asyncio.gather(*(asyncio.to_thread(_read, address) for address in addresses.values()))
        return merged({name: text for name, text in zip(addresses, texts, strict=True) if text is not None})


def merged(texts: Mapping[str, str]) -> bytes:
    """One exposition of several, by the name of the worker that each is of."""
    families: dict[str, Metric] = {}
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text):
            into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            into.samples += [sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples]
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


def announced_address(text: str) -> str:
    """The address in a replica's announcement."""
    return str(json.loads(text)["address"])


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _read(address: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - our own
            text: str = answer.read().decode()
    except OSError:
        return None
    return text
