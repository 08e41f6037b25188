"""
What happened, as those saw it who asked and were answered: one JSON object a line, with a monotonic time.

It is all that :mod:`tests.support.checker` knows beside the final databases, so whoever loads Parley writes down everything here,
before it is asked and after it is answered. Times are of one machine; processes of it share their clock.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any


class History:
    """A file that is appended to, line by line, so that it is whole wherever a run ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _note(self, what: str, **fields: Any) -> None:
        self._file.write(json.dumps({"at": time.monotonic(), "what": what, **fields}) + "\n")

    def asked(self, caller: str, request_id: str, customers: int | None = None) -> None:
        """An exchange is asked for, with so many customers if that is known; once for each try."""
        self._note("asked", caller=caller, request_id=request_id, customers=customers)

    def answered(self, caller: str, request_id: str, outcome: str) -> None:
        """A mutation was answered: what it made or found, in words that are equal for equal outcomes."""
        self._note("answered", caller=caller, request_id=request_id, outcome=outcome)

    def failed(self, caller: str, request_id: str, code: str) -> None:
        """A try ended without an answer, which says nothing about its outcome; of what has no id, it is empty."""
        self._note("failed", caller=caller, request_id=request_id, code=code)

    def delivered(self, caller: str, delivery: Any, opened: Mapping[str, str] = MappingProxyType({})) -> None:
        """A release reached the marketer (a ``parley.broker.v1.Delivery``), and what it says, if it was opened."""
        release = delivery.release
        self._note(
            "delivered",
            caller=caller,
            delivery=delivery.name,
            exchange=release.exchange,
            pseudonym=release.pseudonym,
            release=release.release_id,
            salt=release.opening.salt.hex(),
            detail=release.opening.detail.hex(),
            opened=dict(opened),
        )

    def notified(self, caller: str, delivery: Any) -> None:
        """A notice about a consent reached the marketer (a ``parley.broker.v1.Delivery``)."""
        notice = delivery.notice
        self._note(
            "notified",
            caller=caller,
            delivery=delivery.name,
            consent=notice.consent,
            pseudonym=notice.pseudonym,
            notice=notice.notice,
        )

    def acknowledged(self, caller: str, exchange: str, pseudonym: str) -> None:
        """A release's acknowledgement was answered."""
        self._note("acknowledged", caller=caller, exchange=exchange, pseudonym=pseudonym)

    def withdrawn(self, consent: str, releases: list[str]) -> None:
        """A withdrawal was answered, naming the releases that were made under the consent before."""
        self._note("withdrawn", consent=consent, releases=sorted(releases))

    def stopped(self, process: str, since: float) -> None:
        """A process stood still from a moment until now: what a broker had checked before, it sent after."""
        self._note("stopped", process=process, since=since)
