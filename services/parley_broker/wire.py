"""Broker's records between wire and value."""

from datetime import datetime

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley_broker.domain.states import exchange_state
from parley_broker.store import ExchangeRecord
from parley_terms.wire import timestamp


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
