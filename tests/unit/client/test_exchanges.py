from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_client import ExchangeState, attribute
from parley_client.exchanges import Wanted, audience_of, exchange_from
from parley_terms.terms import Channel, Field, Form, Range, Terms, Use, Validity
from parley_terms.wire import terms_from

NOW = datetime(2026, 5, 4, tzinfo=UTC)
MONTH, WEEK = timedelta(days=30), timedelta(days=7)


def wanted(**changed: Any) -> Wanted:
    parts = {"purposes": ["Marketing"], "ask": ["profile.age"], "valid_for": MONTH, "decide_within": WEEK, **changed}
    return Wanted(**parts)


def test_terms_say_what_is_wanted_and_nothing_else() -> None:
    adult = attribute("profile.age").at_least(18)
    message = wanted(ask=["profile.education", adult], purposes=["Marketing", "https://w3id.org/dpv#CustomerCare"])

    assert terms_from(message.terms(NOW)) == Terms(
        fields=(Field("profile.education", Form.EXACT), Field("profile.age", Form.ANSWER, Range(min="18"))),
        use=Use.STANDING,
        purposes=frozenset({"https://w3id.org/dpv#Marketing", "https://w3id.org/dpv#CustomerCare"}),
        channels=frozenset({Channel.DATA, Channel.WEB_INBOX}),
        validity=Validity(None, NOW + MONTH),
        decision_deadline=NOW + WEEK,
    )


def test_one_time_terms_without_offers_need_no_inbox() -> None:
    terms = terms_from(wanted(one_time=True, offers=False).terms(NOW))

    assert (Use.ONE_TIME, frozenset({Channel.DATA})) == (terms.use, terms.channels)


@pytest.mark.parametrize("slip", [{"purposes": "Marketing"}, {"ask": "profile.age"}])
def test_a_text_in_place_of_a_list_is_refused(slip: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="lists"):
        wanted(**slip).terms(NOW)


def test_spans_end_so_long_from_the_call_or_at_a_moment_that_stays() -> None:
    until = wanted(valid_for=None, decide_within=None, valid_until=NOW + MONTH, decide_by=NOW + WEEK)

    assert wanted().terms(NOW) == until.terms(NOW) == until.terms(NOW + WEEK)


@pytest.mark.parametrize(
    "slip",
    [
        {"valid_for": 30},
        {"valid_for": None},
        {"valid_until": NOW},  # beside valid_for
        {"decide_within": None, "decide_by": NOW.replace(tzinfo=None)},
    ],
)
def test_span_that_is_none_is_refused_with_what_it_may_be(slip: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="its time zone"):
        wanted(**slip).terms(NOW)


def test_span_beyond_all_calendars_is_refused() -> None:
    with pytest.raises(ValueError, match="valid_for ends beyond"):
        wanted(valid_for=timedelta.max).terms(NOW)


@pytest.mark.parametrize("slip", [False, attribute("profile.age"), "profile.age = 30"])
def test_audience_that_is_no_condition_is_refused_with_how_to_write_one(slip: Any) -> None:
    with pytest.raises(TypeError, match="not attribute"):
        audience_of(slip, None)


@pytest.mark.parametrize("slip", [[None], [b"p"]])
def test_pseudonyms_are_texts(slip: Any) -> None:
    with pytest.raises(TypeError, match="texts"):
        audience_of(None, slip)


def test_audience_is_a_condition_or_pseudonyms() -> None:
    condition = attribute("profile.age").at_least(18)

    assert "criteria" == audience_of(condition, None).WhichOneof("audience")
    assert ["a", "b"] == list(audience_of(None, ["a", "b"]).pseudonyms.pseudonyms)
    for both_or_neither in ((condition, ["a"]), (None, None)):
        with pytest.raises(ValueError, match="either"):
            audience_of(*both_or_neither)
    with pytest.raises(TypeError, match="list"):
        audience_of(None, "a")


def test_exchanges_are_read_back_whole() -> None:
    condition = attribute("profile.age").at_least(18) & ~attribute("profile.job").is_("student")
    message = brokerpb.Exchange(
        name="marketers/m/exchanges/x",
        state=brokerpb.EXCHANGE_STATE_FINALIZED,
        terms=wanted().terms(NOW),
        audience=audience_of(condition, None),
        offer_text="Hello",
    )
    message.create_time.FromDatetime(NOW)
    exchange = exchange_from(message)

    assert ("marketers/m/exchanges/x", ExchangeState.FINALIZED, condition, "Hello", NOW) == (
        exchange.name,
        exchange.state,
        exchange.audience,
        exchange.offer_text,
        exchange.create_time,
    )
    assert terms_from(message.terms) == exchange.terms


def test_a_state_of_a_newer_server_is_unknown() -> None:
    message = brokerpb.Exchange(state=99, audience=audience_of(None, ["a"]))  # type: ignore[arg-type]

    assert (ExchangeState.UNKNOWN, ("a",)) == (exchange_from(message).state, exchange_from(message).audience)
