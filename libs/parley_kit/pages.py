"""
Pages of lists (AIP-158): how long they are, and where the next one begins.

A token is where the page before ended. It is no secret and opens nothing: a list is the caller's own, whatever token they bring.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from parley_kit.faults import InvalidRequest, Violation

_USUAL, _LONGEST = 100, 1000
_NAMED = re.compile(r"[a-z2-7]{26}|[a-z2-7]{32}")  # as ids are, and releases
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page of a list starts that is newest first, behind this moment and id, and how long it is."""

    size: int
    before: datetime
    before_id: str

    @classmethod
    def asked(cls, asked_size: int, token: str) -> "Page":
        """The page that a request asks for. Raises InvalidRequest for a token that no page of such a list ended with."""
        return cls(size(asked_size), *(_place(decode(token)) if token else (_END_OF_TIME, "")))

    def next_token(self, ends: Sequence[tuple[datetime, str]]) -> str:
        """Where the next page starts: behind the last of this one's moments and ids; '' where this one isn't full."""
        if len(ends) < self.size:
            return ""
        moment, last = ends[-1]
        return encode(f"{moment.isoformat()} {last}".encode())


def size(asked: int) -> int:
    """How long a page is: 100, unless asked for otherwise, and 1,000 at most."""
    return min(asked or _USUAL, _LONGEST)


def encode(end: bytes) -> str:
    """Write down where a page ended."""
    return base64.urlsafe_b64encode(end).decode()


def decode(token: str) -> bytes:
    """Read where a page ended. Raises InvalidRequest for what :func:`encode` can't have written."""
    try:
        end = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise not_ours() from None
    if encode(end) != token:
        raise not_ours()
    return end


def not_ours() -> InvalidRequest:
    """What refuses a token."""
    return InvalidRequest(violations=[Violation("page_token", "is none that an earlier page of this list ended with")])


def _place(end: bytes) -> tuple[datetime, str]:
    try:
        written, _, last = end.decode("ascii").partition(" ")
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise not_ours() from None
    if moment.utcoffset() != timedelta() or not _NAMED.fullmatch(last):
        raise not_ours()
    return moment, last
