"""What the running services say of themselves: their metrics, read once."""

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from parley_node.home import Running

_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Sample:
    """One number, and its labels."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Told:
    """The samples of each service that could be asked; in one process each has those of all."""

    samples: Mapping[str, tuple[Sample, ...]]
    asked_at: float = 0.0
    """This machine's clock meanwhile, in seconds since 1970."""

    def clock(self, service: str) -> float | None:
        """A service's clock, in seconds since 1970; None where it isn't known."""
        return next((each.value for each in self._of(service, "parley_clock_seconds", service=service)), None)

    def consumer(self, stream: str, group: str) -> str:
        """The state of a reader of a service's stream; empty where it isn't known."""
        found = self._of(group, "parley_consumer_state", stream=stream, group=group)
        return next((each.labels["state"] for each in found if each.value), "")

    def relay(self, service: str) -> str:
        """The state of a service's relay; empty where it isn't known."""
        return next(
            (each.labels["state"] for each in self._of(service, "parley_relay_state", service=service) if each.value),
            "",
        )

    def lag(self, stream: str, group: str) -> int:
        """How many events of a service's stream a reader has not acknowledged; 0 where that isn't known."""
        return int(sum(each.value for each in self._of(stream, "parley_stream_lag", stream=stream, group=group)))

    def _of(self, asked: str, name: str, /, **labels: str) -> Iterator[Sample]:
        for each in self.samples.get(asked, ()):
            if each.name == name and labels.items() <= each.labels.items():
                yield each


async def ask(running: Running | None) -> Told:
    """Read what all say; who doesn't answer is left out."""
    if running is None:
        return Told({})
    urls = sorted(set(running.metrics.values()))
    answers = dict(zip(urls, await asyncio.gather(*(asyncio.to_thread(_read, url) for url in urls)), strict=True))
    return Told({service: answers[url] for service, url in running.metrics.items()}, time.time())


def _read(url: str) -> tuple[Sample, ...]:
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:  # noqa: S310 - an address this home wrote down
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return ()
    families = text_string_to_metric_families(text)
    return tuple(Sample(each.name, each.labels, each.value) for family in families for each in family.samples)
