"""What customers do happens once, is each one's own, and keeps nobody else from anything; their rules are in test_rules."""

import asyncio
from typing import Any

from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.faults import ConsentNotFound, OfferNotFound, RuleNotFound
from parley_kit.faults import CallerNotAllowed, RequestIdReused, Unauthenticated
from parley_kit.ids import new_id
from tests.support.calls import fault_of, request_id
from tests.support.consent import DEADLINE, HOUR, Asker, Person, World, body_of, rule_terms
from tests.support.releases import ASKED, E1, E2


async def _offer_name(world: World, person: Person) -> str:
    await world.decide(Asker(), [person], E1)
    return (await world.as_customer(person).only_offer()).name


async def _consent_name(world: World, person: Person) -> str:
    return (await world.consented(Asker(), [person], E1))[0].name


async def _paused_name(world: World, person: Person) -> str:
    name = await _consent_name(world, person)
    await world.as_customer(person).pause(name)
    return name


async def _rule_name(world: World, person: Person) -> str:
    return (await world.as_customer(person).rule("REFUSE")).name


NAMED = {
    "AcceptOffer": (_offer_name, consentpb.AcceptOfferRequest, OfferNotFound),
    "RefuseOffer": (_offer_name, consentpb.RefuseOfferRequest, OfferNotFound),
    "DeferOffer": (_offer_name, consentpb.DeferOfferRequest, OfferNotFound),
    "WithdrawConsent": (_consent_name, consentpb.WithdrawConsentRequest, ConsentNotFound),
    "PauseConsent": (_consent_name, consentpb.PauseConsentRequest, ConsentNotFound),
    "ResumeConsent": (_paused_name, consentpb.ResumeConsentRequest, ConsentNotFound),
    "DeleteRule": (_rule_name, consentpb.DeleteRuleRequest, RuleNotFound),
}


async def test_every_mutation_five_times_at_once_happens_once(world: World) -> None:
    for method, (prepare, request_type, _) in NAMED.items():
        ann = Person()
        request = request_type(name=await prepare(world, ann), request_id=request_id())
        events, revision = len(await world.events()), await revision_of(world, ann)

        answers = await asyncio.gather(*[world.as_customer(ann).call(method, request) for _ in range(5)])

        assert [answers[0]] * 5 == answers, method
        assert (events + 1, revision + 1) == (len(await world.events()), await revision_of(world, ann)), method


async def test_rule_made_five_times_at_once_is_made_once(world: World) -> None:
    ann, asked = Person(), request_id()

    answers = await asyncio.gather(*[world.as_customer(ann).rule("ASK", asked=asked) for _ in range(5)])

    assert [answers[0]] * 5 == answers
    assert (1, 1) == (await world.count("rules"), len(await world.events("RuleChanged")))


async def test_request_id_with_another_request_is_refused(world: World) -> None:
    ann, asked = world.as_customer(Person()), request_id()
    await ann.rule("ASK", asked=asked)

    assert RequestIdReused is type(await fault_of(ann.rule("REFUSE", asked=asked)))


async def revision_of(world: World, person: Person) -> int:
    return int(await world.db.fetchval("SELECT revision FROM customers WHERE customer = $1", person.customer))


async def test_what_is_somebody_elses_is_as_if_absent_to_every_act(world: World) -> None:
    bob = world.as_customer(Person())
    for method, (prepare, request_type, fault) in NAMED.items():
        theirs = await prepare(world, Person())
        names = (theirs, f"{theirs.partition('/')[0]}/{new_id()}")
        before = await world.dump()

        requests = [request_type(name=name, request_id=request_id()) for name in names]
        faults = [await fault_of(bob.call(method, request)) for request in requests]

        assert [fault, fault] == [type(each) for each in faults], method
        assert said(faults[0]) == said(faults[1]), method
        assert before == await world.dump(), method


async def test_what_is_somebody_elses_reads_as_absent(world: World) -> None:
    bob = world.as_customer(Person())
    for prepare, read in ((_offer_name, bob.offer), (_consent_name, bob.consent)):
        theirs = await prepare(world, Person())
        faults = [await fault_of(read(name)) for name in (theirs, f"{theirs.partition('/')[0]}/{new_id()}")]

        assert said(faults[0]) == said(faults[1])
    assert [[], []] == [list((await bob.offers()).offers), list((await bob.consents()).consents)]


def said(faulty: Any) -> tuple[Any, ...]:
    return type(faulty), faulty.message, faulty.metadata, faulty.violations


async def test_offer_is_no_consent_and_a_born_consent_no_offer(world: World) -> None:
    ann, marketer = Person(), Asker()
    offer = await _offer_name(world, ann)
    await world.as_customer(ann).rule("ALLOW", rule_terms(), consentpb.RuleScope(marketer=marketer.name))
    (entry,) = await world.permits(marketer, [ann], E2)
    await world.settle(entry)

    as_consent = f"consents/{offer.removeprefix('offers/')}"
    as_offer = f"offers/{body_of(entry).consent.removeprefix('consents/')}"
    assert ConsentNotFound is type(await fault_of(world.as_customer(ann).consent(as_consent)))
    assert ConsentNotFound is type(await fault_of(world.as_customer(ann).withdraw(as_consent)))
    assert OfferNotFound is type(await fault_of(world.as_customer(ann).offer(as_offer)))
    assert OfferNotFound is type(await fault_of(world.as_customer(ann).accept(as_offer)))


async def test_callers_are_let_in_by_what_they_are(world: World) -> None:
    settle = consentpb.SettleRequest()
    as_broker = fault_of(world.broker.ListRules(consentpb.ListRulesRequest(), timeout=DEADLINE))

    assert CallerNotAllowed is type(await as_broker)
    assert CallerNotAllowed is type(await fault_of(world.as_customer(Person()).call("Settle", settle)))
    world.clock.move(-HOUR)
    early = world.as_customer(Person())
    world.clock.move(HOUR)
    assert Unauthenticated is type(await fault_of(early.rules()))


async def test_flood_of_one_customers_acts_keeps_nobody_else_from_the_database(world: World) -> None:
    ann, bob = Person(), Person()
    await world.as_customer(ann).rule("ASK")
    async with world.db.tx("test.lock") as tx:
        await tx.execute("SELECT FROM customers WHERE customer = $1 FOR UPDATE", ann.customer)
        flood = [asyncio.ensure_future(world.as_customer(ann).rule("ASK")) for _ in range(40)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await world.as_customer(bob).rule("ASK")
            assert ASKED == await world.outcome(Asker(), bob, E1)
    await asyncio.gather(*flood)
    assert 41 == len((await world.as_customer(ann).rules()).rules)
