"""
What a running service says about itself: numbers and traces.

The libraries below the wire tell a :class:`Meter` and a :class:`Tracer`, which say nothing until a process gives them others. No
name, label or attribute ever holds anything of a customer or a marketer.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NOTHING: AbstractContextManager[None] = nullcontext()

traceparent: ContextVar[str] = ContextVar("parley_traceparent", default="")
"""The span that is being worked in, as W3C writes it (``00-<trace>-<span>-<flags>``); empty where nothing is traced."""


class Meter:
    """Counts nothing; ``parley_rpc.metrics`` has the one that does."""

    def connection(self, waited_s: float) -> None:
        """Somebody waited so long for a connection to the database, whether they got it or not."""

    def pool(self, used: Callable[[], int]) -> None:
        """Ask this how many connections are in use, whenever somebody looks."""

    def relay(self, state: str) -> None:
        """The relay is in a state."""

    def consumer(self, stream: str, group: str, state: str) -> None:
        """A reader of a service's stream is in a state."""

    def lag(self, group: str, events: int) -> None:
        """A group of readers has not acknowledged so many of this service's events yet."""

    def outbox(self, oldest_s: float) -> None:
        """The oldest event that is still owed to a reader is so old; 0 if there is none."""

    def dead_letters(self, counts: Mapping[tuple[str, str], int]) -> None:
        """So many events are set aside in this service's database, by reader and stream; of those left out there are none."""

    def decided(self, outcomes: Mapping[str, int]) -> None:
        """Consent decided about customers: so many with each outcome."""

    def settled(self, outcomes: Mapping[str, int]) -> None:
        """Consent committed releases, or refused them: so many ``settled``, or for a reason not."""

    def withdrawn(self, consents: int) -> None:
        """Customers ended so many consents."""


Ended = Callable[[str], None]
"""Told the gRPC status (its name) that a call ended with."""


class Tracer:
    """Makes no spans; ``parley_rpc.tracing`` has the one that does."""

    on = False
    """Whether spans are made: what they alone need isn't prepared otherwise."""

    def span(self, _name: str, /) -> AbstractContextManager[None]:
        """A span for the block: within the one that is being worked in, else the first of a trace."""
        return _NOTHING

    def inside(self, _name: str, /) -> AbstractContextManager[None]:
        """A span for the block, if that is part of something that is traced already."""
        return _NOTHING

    def linked(self, _name: str, _causes: Iterable[str], /, **_numbers: int) -> AbstractContextManager[None]:
        """
        A span, the first of a trace, for work that others were the cause of: it points to them, and isn't part of them.

        ``causes`` are what :data:`traceparent` was there, empty where nothing was traced; without any there is no span.
        """
        return _NOTHING

    def served(self, _method: str, _parent: str, /) -> AbstractContextManager[Ended]:
        """A span for a call that is answered, within what its caller works in (``parent``, empty for unknown)."""
        return nullcontext(_ignore)

    def called(self, _method: str, /) -> AbstractContextManager[Ended]:
        """A span for a call that is made."""
        return nullcontext(_ignore)


def is_traceparent(text: object) -> bool:
    """Whether something is written as W3C asks (Trace Context 1, version 00)."""
    return isinstance(text, str) and _TRACEPARENT.fullmatch(text) is not None


def _ignore(_status: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Telemetry:
    """What counts, and what makes spans."""

    meter: Meter = Meter()  # noqa: RUF009 - it holds nothing
    tracer: Tracer = Tracer()  # noqa: RUF009 - as above


SILENT = Telemetry()
"""Where nobody listens."""
