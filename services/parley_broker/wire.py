"""Broker's records between wire and value."""

import base64
from datetime import UTC, datetime, timedelta

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley_broker.domain.states import exchange_state
from parley_broker.store import ExchangeRecord
from parley_kit.faults import InvalidRequest, Violation
from parley_kit.ids import decode_id
from parley_terms.wire import timestamp

END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
_LONGEST_PAGE, _DEFAULT_PAGE = 1000, 100


def exchange_to(record: ExchangeRecord, now: datetime) -> brokerpb.Exchange:
    """Write an exchange, with the state it has now."""
    state = exchange_state(cancelled=record.cancelled_at is not None, deadline=record.decision_deadline, now=now)
    return brokerpb.Exchange(
        name=record.name,
        state=brokerpb.ExchangeState.ValueType(state),
        terms=termspb.Terms.FromString(record.terms),
        audience=brokerpb.Audience.FromString(record.audience),
        offer_text=record.offer_text,
        create_time=timestamp(record.created_at),
    )


def page_size(asked: int) -> int:
    """How long a page is."""
    return min(asked or _DEFAULT_PAGE, _LONGEST_PAGE)


def page_from(token: str) -> tuple[datetime, str]:
    """Read where a page starts. Raises InvalidRequest."""
    if not token:
        return END_OF_TIME, ""
    try:
        moment, _, last = base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii").partition(" ")
        at = datetime.fromisoformat(moment)
        if at.utcoffset() == timedelta() and decode_id(last):
            return at, last
    except ValueError:
        pass
    raise InvalidRequest(violations=[Violation("page_token", "not a token of this list")])


def next_token(records: list[ExchangeRecord], size: int) -> str:
    """Write where the next page starts: behind the last of this one, if it is full."""
    if len(records) < size:
        return ""
    last = records[-1]
    return base64.urlsafe_b64encode(f"{last.created_at.isoformat()} {last.exchange_id}".encode()).decode()
