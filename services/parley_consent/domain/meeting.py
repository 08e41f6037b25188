"""
The meeting of two terms: what a customer stands by, and what a marketer requests.

A total function with an explainable answer: the terms agreed, or the first reason they don't meet. The order of the dials is
fixed, so that the reason is the same for the same pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from parley_terms.terms import Form, Terms, Use, Validity


class Dial(StrEnum):
    """The part of the terms on which two don't meet."""

    UNSUPPORTED = "unsupported"
    DEADLINE = "decision_deadline"
    PURPOSE = "purpose"
    CHANNEL = "channel"
    CONTENT = "content"
    USE = "use"
    VALIDITY = "validity"


@dataclass(frozen=True, slots=True)
class Apart:
    """They don't meet, for this reason; ``where`` is a proto path of the terms, empty for the dial as a whole."""

    dial: Dial
    where: str = ""


@dataclass(frozen=True, slots=True)
class Agreed:
    """They meet, on these terms."""

    terms: Terms


def meet(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
    """
    Whether a request lies wholly within standing terms at a moment.

    Nothing is allowed that isn't named: a standing part left empty covers nothing, but for ``use`` (any) and the bounds of
    ``validity`` (none). A request must name purposes, channels, fields, a use, an end of its validity and a decision deadline.
    """
    return next(_reasons(standing, request, now), None) or Agreed(_agreed(request, now))


def _reasons(standing: Terms, request: Terms, now: datetime) -> Iterator[Apart]:
    for path in (*request.unsupported, *standing.unsupported):
        yield Apart(Dial.UNSUPPORTED, path)
    if request.decision_deadline is None or now >= request.decision_deadline:
        yield Apart(Dial.DEADLINE)
    if not request.purposes or not request.purposes <= standing.purposes:
        yield Apart(Dial.PURPOSE)
    if not request.channels or not request.channels <= standing.channels:
        yield Apart(Dial.CHANNEL)
    yield from _content(standing, request)
    if request.use is None or (standing.use is Use.ONE_TIME and request.use is not Use.ONE_TIME):
        yield Apart(Dial.USE)
    if not _spans(standing.validity, request.validity, now):
        yield Apart(Dial.VALIDITY)


def _content(standing: Terms, request: Terms) -> Iterator[Apart]:
    if not request.fields:
        yield Apart(Dial.CONTENT)
    for index, asked in enumerate(request.fields):
        # Any question is for rules alone: a consent names the exact one.
        unnamed = asked.form is Form.ANSWER and asked.question is None
        if unnamed or not standing.covers(asked):
            yield Apart(Dial.CONTENT, f"content.fields[{index}]")


def _spans(standing: Validity, request: Validity, now: datetime) -> bool:
    return request.end is not None and request.holds(now) and standing.contains(request, now)


def _agreed(request: Terms, now: datetime) -> Terms:
    return replace(request, validity=Validity(request.validity.start or now, request.validity.end))
