"""
Can an exchange be followed across services and streams, and does following it join nothing that is kept apart?

One story, told in one process (spans in memory) and with every service in a process of its own (spans sent to a collector).
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.consent.v1 import consent_pb2 as consentpb
from parley_kit.telemetry import SILENT
from parley_rpc.tracing import Spans
from tests.support.calls import request_id
from tests.support.canaries import forms, planted, word
from tests.support.dumps import database_url, quiet
from tests.support.servers import scratch_directory
from tests.support.spans import Seen, collector, from_memory
from tests.support.world import World, between, by_criteria, living_world, quick, terms

pytestmark = pytest.mark.slow

CITY = word()
OUTSIDE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_CONSENT = "parley.consent.v1.ConsentService"


@dataclass
class Story:
    """What was to be seen of it: the spans, consent's events by type, and the ids of those who took part."""

    spans: list[Seen] = field(default_factory=list)
    events: dict[str, list[EventEnvelope]] = field(default_factory=dict)
    people: list[str] = field(default_factory=list)

    def named(self, name: str, kind: str = "") -> list[Seen]:
        """Spans of a name."""
        return [each for each in self.spans if each.name == name and kind in ("", each.kind)]

    def one(self, name: str, kind: str = "") -> Seen:
        """The only span of a name."""
        (found,) = self.named(name, kind)
        return found

    def above(self, span: Seen) -> Seen | None:
        """The span that a span is within."""
        return next((each for each in self.spans if each.span == span.parent), None)


@pytest.fixture(scope="module", params=["together", pytest.param("apart", marks=pytest.mark.slow)])
async def story(request: pytest.FixtureRequest) -> Story:
    """It is told once, and looked at when everything is over."""
    told = Story()
    running = _apart if request.param == "apart" else _together
    with scratch_directory() as root:
        async with running(root / "home", told) as world, _keeping_events(world):
            await _tell(world, told)
            await quiet(world)
            told.events = await _kept(world)
    return told


@asynccontextmanager
async def _together(home: Path, told: Story) -> AsyncIterator[World]:
    exporter = InMemorySpanExporter()
    spans = Spans("parley", SimpleSpanProcessor(exporter))
    async with living_world(home, apart=False, tracer=spans) as world:
        yield world
    spans.close()
    told.spans = from_memory(exporter.get_finished_spans())


@asynccontextmanager
async def _apart(home: Path, told: Story) -> AsyncIterator[World]:
    with collector() as (address, sent):
        options = quick()
        async with living_world(home, _sending(options, address), apart=True) as world:
            yield world
    told.spans = sent  # a service sends what is left when it ends


def _sending(options: Any, address: str) -> Any:
    return type(options)(**{**options.__dict__, "traces": address})


async def _tell(world: World, told: Story) -> None:
    """An exchange, a withdrawal, and a call that fails; the customer's program sends a trace of its own along."""
    marketer, customer = await world.marketer(), await world.customer()
    await customer.put(profile_age="44", profile_city=CITY)
    await customer.discoverable("profile.age")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "44", "44")))
    offer = await customer.offer()
    accept = consentpb.AcceptOfferRequest(name=offer.name, request_id=request_id())
    traced = (*customer.tokens["consent"], ("traceparent", OUTSIDE))
    await world.stubs.consent.AcceptOffer(accept, metadata=traced)
    (release,) = await marketer.collect(1)
    await marketer.acknowledge(release)
    await customer.withdraw(offer.name.replace("offers/", "consents/"))
    with pytest.raises(grpc.aio.AioRpcError):
        await customer.withdraw(f"consents/{'a' * 26}")
    (notice,) = await marketer.collect(1)
    told.people = [
        *(customer.name.rpartition("/")[2], marketer.name.rpartition("/")[2]),
        *(release.release.pseudonym, notice.notice.consent.rpartition("/")[2]),
    ]


@asynccontextmanager
async def _keeping_events(world: World) -> AsyncIterator[None]:
    """Keep what consent writes into its outbox, from which it goes as soon as it is read."""
    admin = await asyncpg.connect(database_url(world, "consent"))
    await admin.execute("CREATE TABLE kept (envelope bytea)")
    await admin.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN INSERT INTO kept VALUES (NEW.envelope); RETURN NEW; END $$"
    )
    await admin.execute("CREATE TRIGGER keep BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION keep()")
    try:
        yield
    finally:
        await admin.close()


async def _kept(world: World) -> dict[str, list[EventEnvelope]]:
    admin = await asyncpg.connect(database_url(world, "consent"))
    rows = await admin.fetch("SELECT envelope FROM kept")
    await admin.close()
    found: dict[str, list[EventEnvelope]] = {}
    for row in rows:
        envelope = EventEnvelope.FromString(row["envelope"])
        found.setdefault(envelope.type.rpartition(".")[2], []).append(envelope)
    return found


def _trace(envelope: EventEnvelope) -> str:
    return envelope.traceparent.split("-")[1]


# --- Following -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "parley.vault.v1.VaultService/Release",
        f"{_CONSENT}/Decide",
        f"{_CONSENT}/Settle",
        "parley.identity.v1.IdentityService/Introduce",
    ],
)
def test_call_between_services_is_a_span_on_either_side_of_one_trace(story: Story, method: str) -> None:
    served = story.named(method, "SERVER")
    assert served
    for each in served:
        called = story.above(each)
        assert called is not None
        assert (method, "CLIENT", each.trace) == (called.name, called.kind, called.trace)


def test_work_on_one_exchange_is_one_trace_over_all_services_that_it_asks(story: Story) -> None:
    asked = {"broker.carry", f"{_CONSENT}/Decide", f"{_CONSENT}/Settle", "parley.vault.v1.VaultService/Release"}
    # On a machine that is slow enough a first try may come to nothing.
    tried = {each.trace for each in story.named("parley.vault.v1.VaultService/Release", "SERVER")}
    assert any(asked <= {each.name for each in story.spans if each.trace == trace} for trace in tried)


def test_services_are_told_apart_where_they_run_apart(story: Story) -> None:
    services = {each.service for each in story.spans}
    assert services in ({"parley"}, {f"parley-{name}" for name in ("identity", "vault", "consent", "broker", "audit")})


def test_transaction_is_a_span_of_its_name_within_the_call_that_it_serves(story: Story) -> None:
    served = story.one(f"{_CONSENT}/AcceptOffer", "SERVER")
    transaction = story.one("consent.AcceptOffer")
    assert served == story.above(transaction)


@pytest.mark.parametrize("reading", ["consent.publish", "broker.read", "audit.read"])
def test_relay_and_readers_point_to_what_an_event_came_from_and_are_no_part_of_it(story: Story, reading: str) -> None:
    accepted = story.one(f"{_CONSENT}/AcceptOffer", "SERVER")
    found = [each for each in story.named(reading, "CONSUMER") if accepted.trace in each.links]
    assert found
    assert all(each.trace != accepted.trace and not each.parent for each in found)


def test_call_that_fails_says_with_which_status_and_no_more(story: Story) -> None:
    statuses = {
        each.attributes["rpc.response.status_code"] for each in story.named(f"{_CONSENT}/WithdrawConsent", "SERVER")
    }
    assert {"OK", "NOT_FOUND"} == statuses


# --- Joining nothing -----------------------------------------------------------------------------------------------------


def test_notice_to_a_marketer_carries_nothing_of_the_act_while_the_act_itself_is_traced(story: Story) -> None:
    withdrawn = {each.trace for each in story.named(f"{_CONSENT}/WithdrawConsent", "SERVER")}
    (changed,), (notified,) = story.events["ConsentChanged"], story.events["ConsentNotified"]
    assert _trace(changed) in withdrawn
    assert "" == notified.traceparent


def test_what_a_customers_program_calls_its_trace_is_kept_nowhere(story: Story) -> None:
    outside = OUTSIDE.split("-")[1]
    assert all(outside != each.trace and outside not in each.links for each in story.spans)
    assert all(outside not in each.traceparent for events in story.events.values() for each in events)
    assert all(each.traceparent for each in story.events["ConsentGiven"])


def test_each_act_of_a_customer_is_a_trace_of_its_own(story: Story) -> None:
    calls = [each for each in story.spans if each.kind == "SERVER" and story.above(each) is None]
    assert len(calls) == len({each.trace for each in calls}) > 0


def test_attributes_say_nothing_of_anybody(story: Story) -> None:
    allowed = {"rpc.system.name", "rpc.method", "rpc.response.status_code", "events"}
    said = " ".join(f"{each.service} {each.name} {each.attributes} {each.told}" for each in story.spans)
    assert {name for each in story.spans for name in each.attributes} <= allowed
    assert not [each for each in story.spans if each.told]
    assert 4 == len([each for each in story.people if len(each) > 8])
    for secret in [*story.people, *planted()]:
        assert not [form for form in forms(secret) if form in said.encode()]


# --- Off -----------------------------------------------------------------------------------------------------------------


def test_nothing_of_it_is_even_loaded_where_nobody_takes_spans() -> None:
    program = (  # the parts for metrics are loaded by redis-py wherever they are installed
        "import sys, parley_node.node, parley_node.split, parley_rpc.serving, parley_client\n"
        "sys.exit(any(name.startswith('opentelemetry.sdk.trace') for name in sys.modules))"
    )
    assert 0 == subprocess.run([sys.executable, "-c", program], check=False, env=_paths()).returncode


def test_no_span_is_made_where_nobody_takes_them() -> None:
    tracer = SILENT.tracer
    assert tracer.inside("a") is tracer.span("b") is tracer.linked("c", [OUTSIDE])


def _paths() -> Mapping[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}
