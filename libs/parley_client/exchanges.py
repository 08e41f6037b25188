"""Exchanges: what a marketer asks, written to the wire, and what comes back of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley_client.conditions import Attribute, Condition, Question, criteria_to, field_of
from parley_terms.purposes import DPV
from parley_terms.terms import Terms
from parley_terms.wire import criteria_from, field_to, terms_from, timestamp

Asked = str | Attribute | Question


class ExchangeState(StrEnum):
    """An exchange's state. It says nothing about any customer; unknown is one that this version doesn't know."""

    UNKNOWN = "UNKNOWN"
    REQUESTED = "REQUESTED"
    FINALIZED = "FINALIZED"
    TERMINATED = "TERMINATED"


_STATES = {
    brokerpb.EXCHANGE_STATE_REQUESTED: ExchangeState.REQUESTED,
    brokerpb.EXCHANGE_STATE_FINALIZED: ExchangeState.FINALIZED,
    brokerpb.EXCHANGE_STATE_TERMINATED: ExchangeState.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of the marketer's. ``audience`` is a condition, or the pseudonyms that were asked."""

    name: str
    state: ExchangeState
    terms: Terms
    audience: Condition | tuple[str, ...]
    offer_text: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What is asked, on which terms.

    ``purposes`` are DPV terms, the prefix may be left out. It ends ``valid_until``, or ``valid_for`` so long from the call;
    decisions are due ``decide_by``, or ``decide_within`` so long. ``one_time`` is for one release and never again. With
    ``offers``, customers whose rules say "ask me" find an offer in their inbox; without, nobody is asked and only who already
    allows it answers.
    """

    purposes: Iterable[str]
    ask: Iterable[Asked]
    valid_for: timedelta | None = None
    decide_within: timedelta | None = None
    valid_until: datetime | None = None
    decide_by: datetime | None = None
    one_time: bool = False
    offers: bool = True

    def terms(self, now: datetime) -> termspb.Terms:
        """Write the terms. Raises TypeError and ValueError for what can't be asked."""
        if isinstance(self.purposes, str) or isinstance(self.ask, str):
            raise TypeError("purposes and ask are lists")
        channels = [termspb.CHANNEL_DATA, *([termspb.CHANNEL_WEB_INBOX] if self.offers else [])]
        return termspb.Terms(
            content=termspb.Content(
                fields=[field_to(field_of(asked)) for asked in self.ask],
                use=termspb.USE_ONE_TIME if self.one_time else termspb.USE_STANDING,
            ),
            purposes=[complete_purpose(purpose) for purpose in self.purposes],
            mode=termspb.Mode(channels=channels),
            timing=termspb.Timing(
                validity=termspb.Validity(
                    end_time=_moment(now, valid_for=self.valid_for, valid_until=self.valid_until)
                ),
                decision_deadline=_moment(now, decide_within=self.decide_within, decide_by=self.decide_by),
            ),
        )

    def request_id(self, given: UUID | None) -> str:
        """The id to ask under; none is for the connection to make. Raises TypeError for one that couldn't be used again."""
        if given is None:
            return ""
        if not isinstance(given, UUID):
            raise TypeError("request_id is a UUID")
        if self.valid_for is not None or self.decide_within is not None:
            raise TypeError(
                "give valid_until and decide_by with a request_id: spans from now make each call another request"
            )
        return str(given)


def _moment(now: datetime, **given: timedelta | datetime | None) -> Timestamp:
    """When a span ends that is given in one of two ways. Raises TypeError, and ValueError for a moment beyond all calendars."""
    said = [value for value in given.values() if value is not None]
    match said:
        case [timedelta() as span]:
            try:
                return timestamp(now + span)
            except OverflowError:
                raise ValueError(f"{next(iter(given))} ends beyond the year 9999") from None
        case [datetime() as moment] if moment.tzinfo is not None:
            return timestamp(moment)
    raise TypeError(f"give either {' (a timedelta) or '.join(given)} (a datetime with its time zone)")


def complete_purpose(purpose: str) -> str:
    """Complete a short DPV name, ``Marketing`` or ``dpv:Marketing``; an IRI stays as it is."""
    return purpose if "://" in purpose else DPV + purpose.removeprefix("dpv:")


def audience_of(where: Condition | None, pseudonyms: Iterable[str] | None) -> brokerpb.Audience:
    """Write the audience: exactly one of the two. Raises ValueError, TypeError."""
    if (where is None) == (pseudonyms is None):
        raise ValueError("say who is asked: either `where` or `pseudonyms`")
    if where is not None:
        if not isinstance(where, Condition):
            raise TypeError("`where` is a condition: attribute(...).is_(30), not attribute(...) == 30")
        return brokerpb.Audience(criteria=criteria_to(where.criteria))
    asked = [] if isinstance(pseudonyms, str) else list(pseudonyms or ())
    if isinstance(pseudonyms, str) or not all(isinstance(each, str) for each in asked):
        raise TypeError("pseudonyms is a list of texts")
    return brokerpb.Audience(pseudonyms=brokerpb.Pseudonyms(pseudonyms=asked))


def exchange_from(message: brokerpb.Exchange) -> Exchange:
    """Read an exchange."""
    return Exchange(
        name=message.name,
        state=_STATES.get(message.state, ExchangeState.UNKNOWN),
        terms=terms_from(message.terms),
        audience=_audience(message.audience),
        offer_text=message.offer_text,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
    )


def _audience(message: brokerpb.Audience) -> Condition | tuple[str, ...]:
    if message.WhichOneof("audience") == "criteria":
        return Condition(criteria_from(message.criteria))
    return tuple(message.pseudonyms.pseudonyms)
