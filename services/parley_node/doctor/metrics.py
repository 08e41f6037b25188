"""What the running services say of themselves: their metrics, read once."""

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

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
    told_at: Mapping[str, float] = field(default_factory=dict)
    """This machine's clock when each of them answered, in seconds since 1970."""

    def skew(self, service: str) -> timedelta | None:
        """How far a service's clock is ahead of this machine's; None where it isn't known."""
        clocks = [each.value for each in self._of(service, "parley_clock_seconds", service=service)]
        return timedelta(seconds=clocks[0] - self.told_at[service]) if clocks else None

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
    told = {service: answers[url] for service, url in running.metrics.items()}
    return Told({name: samples for name, (samples, _) in told.items()}, {name: at for name, (_, at) in told.items()})


def _read(url: str) -> tuple[tuple[Sample, ...], float]:
    """What is told there, and when; another that hangs doesn't change that."""
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:  # noqa: S310 - an address this home wrote down
            text, told_at = answer.read().decode(), time.time()
    except (OSError, urllib.error.URLError):
        return (), 0.0
    families = text_string_to_metric_families(text)
    return tuple(Sample(each.name, each.labels, each.value) for family in families for each in family.samples), told_at
