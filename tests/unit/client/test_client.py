import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_audit.faults import ProofNotFound
from parley_broker.faults import DeliveryNotFound
from parley_client import Client, Settings, attribute, errors
from parley_client.errors import DeliveryInvalid
from parley_client.exchanges import audience_of
from parley_crypto.tlog.policy import seal_policy
from parley_node.verify import verify_files
from parley_terms.wire import criteria_from
from tests.support.clocks import StillClock
from tests.unit.client.deliveries import EXCHANGE, PSEUDONYM, SETTLED, logged, release
from tests.unit.client.scripted import (
    HANGS,
    MARKETER,
    Script,
    marketer_files,
    serving,
)
from tests.unit.tlog import makers

POLICY = seal_policy(makers.policy(threshold=2).to_bytes())
MONTH, WEEK = timedelta(days=30), timedelta(days=7)


@pytest.fixture
def script() -> Script:
    return Script(StillClock(datetime(2026, 5, 4, tzinfo=UTC)))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return marketer_files(tmp_path, POLICY)


@asynccontextmanager
async def client_of(script: Script, environ: dict[str, str]) -> AsyncIterator[Client]:
    async with serving(script) as address:
        settings = replace(Settings.from_env(environ), address=address)
        async with Client(settings, clock=script.clock) as client:
            yield client


def exchange(name: str = "x") -> brokerpb.Exchange:
    return brokerpb.Exchange(name=name, audience=audience_of(None, [PSEUDONYM]))


async def test_a_campaign_reads_as_one_story(script: Script, environ: dict[str, str], tmp_path: Path) -> None:
    sent = release()
    where = (
        attribute("profile.age").between(30, 45)
        & attribute("profile.job").is_("technician")
        & ~attribute("finance.personal_loan").is_(True)
    )
    script.answers = {
        "CreateExchangeRequest": [brokerpb.CreateExchangeResponse(exchange=exchange())],
        "GetProofRequest": [logged(sent.opening)],
        "AcknowledgeDeliveriesRequest": [brokerpb.AcknowledgeDeliveriesResponse()],
    }
    script.turns = [[sent.message, HANGS]]
    async with client_of(script, environ) as parley:
        made = await parley.create_exchange(
            purposes=["Marketing"],
            ask=["profile.age", "profile.education"],
            where=where,
            offer_text="Hello",
            valid_for=MONTH,
            decide_within=WEEK,
        )
        async with aclosing(parley.deliveries()) as deliveries:
            async for delivery in deliveries:
                opened = delivery.open()
                paths = await parley.save_receipt(delivery, tmp_path / "receipts")
                await parley.acknowledge(delivery)
                break

    asked, proof, acknowledged = script.requests
    assert ("x", PSEUDONYM, {"profile.education": "tertiary"}) == (made.name, opened.pseudonym, opened.values)
    assert ("Hello", False) == (asked.offer_text, asked.release_in_answer)
    assert where.criteria == criteria_from(asked.audience.criteria)
    assert sent.opening.commitment == proof.commitment
    assert ["deliveries/1"] == list(acknowledged.names)
    assert SETTLED == verify_files(*paths).detail


async def test_exchange_whose_answer_was_lost_is_asked_for_by_the_very_same_bytes(
    script: Script, environ: dict[str, str]
) -> None:
    script.answers = {"CreateExchangeRequest": [brokerpb.CreateExchangeResponse(exchange=exchange()) for _ in range(4)]}
    spans = {"valid_until": script.clock.at + MONTH, "decide_by": script.clock.at + WEEK}
    same, where = uuid4(), attribute("profile.age").at_least(18)
    async with client_of(script, environ) as parley:
        for _ in range(2):
            script.clock.at += timedelta(minutes=1)
            common: Any = {"purposes": ["Marketing"], "ask": ["profile.age"], "request_id": same, **spans}
            await parley.create_exchange(where=where, **common)
            await parley.ask_one(PSEUDONYM, **common)

    first, alone, again, alone_again = script.requests
    assert (str(same), first, alone) == (first.request_id, again, alone_again)


@pytest.mark.parametrize(
    "relative", [{"valid_for": MONTH, "decide_within": WEEK}, {"valid_for": MONTH}, {"decide_within": WEEK}], ids=str
)
async def test_request_id_that_could_not_be_used_again_is_refused(
    script: Script, environ: dict[str, str], relative: dict[str, Any]
) -> None:
    until: dict[str, Any] = {"valid_until": script.clock.at + MONTH, "decide_by": script.clock.at + WEEK}
    absolute = {"valid_for": "valid_until", "decide_within": "decide_by"}
    rest = {name: moment for name, moment in until.items() if name not in {absolute[each] for each in relative}}
    common: Any = {"purposes": ["Marketing"], "ask": ["profile.age"], "request_id": uuid4()}
    async with client_of(script, environ) as parley:
        with pytest.raises(TypeError, match="valid_until and decide_by"):
            await parley.ask_one(PSEUDONYM, **common, **relative, **rest)
        with pytest.raises(TypeError, match="UUID"):
            await parley.ask_one(PSEUDONYM, **{**common, "request_id": "mine"}, **until)


async def test_delivery_that_was_kept_is_read_again(script: Script, environ: dict[str, str]) -> None:
    async with client_of(script, environ) as parley:
        assert PSEUDONYM == parley.delivery(release().to_bytes()).open().pseudonym
        with pytest.raises(DeliveryInvalid, match="no delivery"):
            parley.delivery(b"\xff")


def test_types_of_the_sdk_are_its_users_too() -> None:
    for package in ("parley_client", "parley_kit", "parley_crypto", "parley_rpc", "parley_terms"):
        assert files(package).joinpath("py.typed").is_file(), package


async def test_one_known_customer_may_answer_at_once(script: Script, environ: dict[str, str]) -> None:
    script.answers = {
        "CreateExchangeRequest": [
            brokerpb.CreateExchangeResponse(exchange=exchange(EXCHANGE), delivery=release().message),
            brokerpb.CreateExchangeResponse(exchange=exchange(EXCHANGE)),
        ]
    }
    async with client_of(script, environ) as parley:
        at_once = await parley.ask_one(
            PSEUDONYM, purposes=["Marketing"], ask=["profile.age"], valid_for=MONTH, decide_within=WEEK
        )
        later = await parley.ask_one(
            PSEUDONYM, purposes=["Marketing"], ask=["profile.age"], valid_for=MONTH, decide_within=WEEK
        )

    assert at_once.delivery is not None
    assert (PSEUDONYM, None) == (at_once.delivery.open().pseudonym, later.delivery)
    assert (True, [PSEUDONYM]) == (
        script.requests[0].release_in_answer,
        list(script.requests[0].audience.pseudonyms.pseudonyms),
    )


@pytest.mark.parametrize(("asked", "made"), [("z" * 32, EXCHANGE), (PSEUDONYM, "another")])
async def test_answer_with_a_release_of_anything_else_is_refused(
    script: Script, environ: dict[str, str], asked: str, made: str
) -> None:
    answer = brokerpb.CreateExchangeResponse(exchange=exchange(made), delivery=release().message)
    script.answers = {"CreateExchangeRequest": [answer]}
    async with client_of(script, environ) as parley:
        with pytest.raises(DeliveryInvalid, match="another"):
            await parley.ask_one(
                asked, purposes=["Marketing"], ask=["profile.age"], valid_for=MONTH, decide_within=WEEK
            )


async def test_exchanges_are_listed_over_all_pages(script: Script, environ: dict[str, str]) -> None:
    script.answers = {
        "ListExchangesRequest": [
            brokerpb.ListExchangesResponse(exchanges=[exchange("a"), exchange("b")], next_page_token="more"),
            brokerpb.ListExchangesResponse(exchanges=[exchange("c")]),
        ]
    }
    async with client_of(script, environ) as parley:
        assert ["a", "b", "c"] == [each.name async for each in parley.list_exchanges()]

    assert ["", "more"] == [request.page_token for request in script.requests]


async def test_many_deliveries_are_acknowledged_in_batches(script: Script, environ: dict[str, str]) -> None:
    many = [release(name=f"deliveries/{n}") for n in range(3)] * 500
    script.answers = {"AcknowledgeDeliveriesRequest": [brokerpb.AcknowledgeDeliveriesResponse() for _ in range(2)]}
    async with client_of(script, environ) as parley:
        await parley.acknowledge(*many)
        await parley.acknowledge()

    assert [1000, 500] == [len(request.names) for request in script.requests]


async def test_acknowledgements_that_wait_fill_requests(script: Script, environ: dict[str, str]) -> None:
    calls = [[release(name=f"deliveries/{call}-{n}") for n in range(300)] for call in range(8)]
    script.answers = {"AcknowledgeDeliveriesRequest": [brokerpb.AcknowledgeDeliveriesResponse() for _ in range(3)]}
    async with client_of(script, environ) as parley:
        await asyncio.gather(*(parley.acknowledge(*call) for call in calls))

    assert [900, 900, 600] == [len(request.names) for request in script.requests]


async def test_acknowledgements_that_wait_together_share_a_request(script: Script, environ: dict[str, str]) -> None:
    script.answers = {"AcknowledgeDeliveriesRequest": [brokerpb.AcknowledgeDeliveriesResponse()]}
    async with client_of(script, environ) as parley:
        await asyncio.gather(*(parley.acknowledge(release(name=f"deliveries/{n}")) for n in range(5)))

    (request,) = script.requests
    assert [f"deliveries/{n}" for n in range(5)] == list(request.names)


async def test_acknowledgement_of_what_is_not_there_fails_alone(script: Script, environ: dict[str, str]) -> None:
    script.failures = [DeliveryNotFound(), DeliveryNotFound()]  # all together, then the first of them
    script.answers = {"AcknowledgeDeliveriesRequest": [brokerpb.AcknowledgeDeliveriesResponse() for _ in range(2)]}
    async with client_of(script, environ) as parley:
        outcomes = await asyncio.gather(
            *(parley.acknowledge(release(name=f"deliveries/{n}")) for n in range(3)), return_exceptions=True
        )

    assert [errors.DeliveryNotFound, type(None), type(None)] == [type(outcome) for outcome in outcomes]
    assert [3, 1, 1, 1] == [len(request.names) for request in script.requests]


async def test_a_receipt_is_waited_for_until_it_is_in_the_log(script: Script, environ: dict[str, str]) -> None:
    sent = release()
    script.failures = [ProofNotFound(), ProofNotFound()]
    script.answers = {"GetProofRequest": [logged(sent.opening)]}
    async with client_of(script, environ) as parley:
        assert SETTLED == (await parley.verify_receipt(sent)).detail

    assert 3 == len(script.requests)


async def test_waiting_for_a_receipt_ends(script: Script, environ: dict[str, str]) -> None:
    script.failures = [ProofNotFound() for _ in range(50)]
    async with client_of(script, environ) as parley:
        with pytest.raises(errors.ProofNotFound):
            await parley.verify_receipt(release(), wait=timedelta(seconds=1))

    assert 2 <= len(script.requests) <= 6


def test_every_missing_variable_is_named(environ: dict[str, str]) -> None:
    for name in environ:
        with pytest.raises(errors.SettingsInvalid, match=f"not set: {name} ") as caught:
            Client.from_env({**environ, name: ""})
        assert 1 == str(caught.value).count("PARLEY_")
    with pytest.raises(errors.SettingsInvalid) as caught:
        Client.from_env({})
    assert len(environ) == str(caught.value).count("PARLEY_")


@pytest.mark.parametrize("name", ["SIGNING_KEY", "SEALING_KEY", "TRUST", "POLICY"])
@pytest.mark.parametrize("content", [None, "nonsense\n"])
def test_a_file_that_cannot_be_used_is_named(environ: dict[str, str], name: str, content: str | None) -> None:
    path = Path(environ[f"PARLEY_{name}_FILE"])
    path.unlink()
    if content:
        path.write_text(content)
        path.chmod(0o600)

    with pytest.raises(errors.SettingsInvalid, match=str(path)):
        Client.from_env(environ)


async def test_a_release_to_the_key_before_the_newest_opens(script: Script, environ: dict[str, str]) -> None:
    add_key(Path(environ["PARLEY_SEALING_KEY_FILE"]), bytes(range(32)))
    script.turns = [[release().message, HANGS]]
    async with client_of(script, environ) as parley, aclosing(parley.deliveries()) as deliveries:
        assert PSEUDONYM == (await anext(deliveries)).open().pseudonym


def add_key(path: Path, key: bytes) -> None:
    with path.open("a") as file:
        file.write(f"2 {base64.b64encode(key).decode()}\n")


def test_a_marketer_is_who_the_environment_says(environ: dict[str, str]) -> None:
    assert MARKETER == Settings.from_env(environ).marketer
