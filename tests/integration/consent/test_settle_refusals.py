"""What does not settle, why not, and that nothing changes then."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley.audit.v1 import audit_events_pb2 as auditpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.identity.v1 import identity_events_pb2 as identitypb
from parley_crypto.signing import Signer
from tests.support.consent import HOUR, Asker, Person, World, body_of, forged, rule_terms
from tests.support.releases import (
    BEHIND,
    E1,
    E2,
    E3,
    EXPIRED,
    INVALID,
    NOT_CONSENTED,
    PAUSED,
    REFUSED,
    SETTLED,
    STALE,
    under_consent,
    under_rule,
)
from tests.support.waiting import until


async def test_permit_that_has_ended_settles_nothing(world: World) -> None:
    entry = await under_consent(world, Person(), Asker())
    ends = body_of(entry).expire_time.ToDatetime(UTC)
    assert timedelta(seconds=30) == ends - world.clock.now()

    world.clock.move(timedelta(seconds=30) - timedelta(microseconds=1))
    assert SETTLED == (await world.settle(entry))[0].refusal
    world.clock.move(timedelta(microseconds=1))
    assert STALE == (await world.settle(entry))[0].refusal, "though it has settled before"


async def test_permit_settles_nothing_once_a_rule_begins_or_ends_and_tells_its_bearer_of_none(world: World) -> None:
    ann, marketer, now = Person(), Asker(), world.clock.now()
    soon, later = now + timedelta(seconds=9), now + timedelta(seconds=12)
    await world.as_customer(ann).rule("REFUSE", spanning(soon, later))
    entry = await under_rule(world, ann, marketer)
    assert now + timedelta(seconds=30) == body_of(entry).expire_time.ToDatetime(UTC)

    world.clock.move(soon - now)

    assert (STALE, REFUSED) == ((await world.settle(entry))[0].refusal, await world.outcome(marketer, ann, E1))


def spanning(start: datetime, end: datetime) -> termspb.Terms:
    """A refuse rule's terms, of everything for a while."""
    terms = termspb.Terms()
    terms.timing.validity.start_time.FromDatetime(start)
    terms.timing.validity.end_time.FromDatetime(end)
    return terms


@pytest.mark.parametrize("prepare", [under_consent, under_rule])
async def test_forged_or_moved_permit_is_invalid_and_changes_nothing(
    world: World, prepare: Callable[..., Awaitable[consentpb.SettleEntry]]
) -> None:
    ann, bob, marketer, rival = Person(), Person(), Asker(), Asker()
    entry, other = await prepare(world, ann, marketer), await prepare(world, bob, marketer)
    changed, torn, moved, unknown, theirs, for_rival, nobodys = (_copy(entry) for _ in range(7))
    changed.permit.body = forged(entry, world.signer, release_id="b" * 32).permit.body
    torn.permit.body = entry.permit.body[:-1]
    moved.batch.CopyFrom(other.batch)
    unknown.batch.key_id = "nobody"
    theirs.consent_ref = world.consent_ref(bob, marketer)
    for_rival.consent_ref = world.consent_ref(ann, rival)
    nobodys.consent_ref = b"x" * 64
    stranger = forged(entry, Signer(b"f" * 32))
    before = await world.dump()

    outcomes = await world.settle(changed, torn, moved, unknown, theirs, for_rival, nobodys, stranger)

    assert [INVALID] * 8 == [outcome.refusal for outcome in outcomes]
    assert not any(outcome.HasField("opening") or outcome.artefact for outcome in outcomes)
    assert before == await world.dump()
    assert SETTLED == (await world.settle(entry))[0].refusal


def _copy(entry: consentpb.SettleEntry) -> consentpb.SettleEntry:
    copy = consentpb.SettleEntry()
    copy.CopyFrom(entry)
    return copy


async def refusal(world: World, entry: consentpb.SettleEntry) -> int:
    """Why a release isn't settled; nothing may have changed, and the answer holds nothing else."""
    before = await world.dump()
    (outcome,) = await world.settle(entry)
    assert before == await world.dump()
    assert consentpb.SettleOutcome(refusal=outcome.refusal) == outcome
    return outcome.refusal


async def test_permit_is_stale_after_every_kind_of_act(world: World) -> None:
    marketer = Asker()
    for act in ("add rule", "end rule", "pause", "pause and resume", "withdraw", "answer another offer"):
        ann = Person()
        me = world.as_customer(ann)
        rule = await me.rule("ASK", rule_terms(attributes=["contact.email"]))
        await world.decide(Asker(), [ann], E3)
        (other,) = (await me.offers()).offers
        await world.decide(marketer, [ann], E1)
        (offer,) = [each for each in (await me.offers()).offers if each.marketer == marketer.name]
        consent = (await me.accept(offer.name)).consent.name
        (entry,) = await world.permits(marketer, [ann], E2)

        await _do(me, act, rule.name, consent, other.name)

        assert STALE == await refusal(world, entry), act


async def _do(me: Any, act: str, rule: str, consent: str, offer: str) -> None:
    match act:
        case "add rule":
            await me.rule("ASK")
        case "end rule":
            await me.end_rule(rule)
        case "pause":
            await me.pause(consent)
        case "pause and resume":
            await me.pause(consent)
            await me.resume(consent)
        case "withdraw":
            await me.withdraw(consent)
        case "answer another offer":
            await me.refuse(offer)


async def test_permit_of_a_customer_nobody_knows_is_stale(world: World) -> None:
    entry = await under_rule(world, Person(), Asker())
    nobody = Person()
    forged_for_nobody = forged(
        entry,
        world.signer,
        pseudonym=nobody.pseudonym(marketer := Asker()),
        marketer=marketer.name,
        basis=world.basis(nobody, 1),
        own=b"",
    )
    forged_for_nobody.consent_ref = world.consent_ref(nobody, marketer)

    assert STALE == await refusal(world, forged_for_nobody)


async def test_permit_that_names_the_new_revision_still_needs_a_live_agreement(world: World) -> None:
    """The second line behind the revision: what the permit rests on is looked at as well."""
    marketer = Asker()
    for ending, expected in (("pause", PAUSED), ("withdraw", NOT_CONSENTED)):
        ann = Person()
        entry = await under_consent(world, ann, marketer)
        await getattr(world.as_customer(ann), ending)(body_of(entry).consent)

        assert expected == await refusal(world, forged(entry, world.signer, basis=world.basis(ann, 2))), ending


async def test_ended_rule_gives_birth_to_nothing(world: World) -> None:
    ann, marketer = Person(), Asker()
    entry = await under_rule(world, ann, marketer)
    (rule,) = (await world.as_customer(ann).rules()).rules
    await world.as_customer(ann).end_rule(rule.name)

    assert STALE == await refusal(world, entry)
    assert NOT_CONSENTED == await refusal(
        world, forged(entry, world.signer, basis=world.basis(ann, 2, rule.name.removeprefix("rules/")))
    )
    assert NOT_CONSENTED == await refusal(world, forged(entry, world.signer, basis=world.basis(ann, 2)))


async def test_consent_past_its_end_by_the_databases_clock_settles_nothing(world: World) -> None:
    marketer, ann, bob = Asker(), Person(), Person()
    world.clock.move(-3 * HOUR)  # this process is late, the database is not
    ended = {"end": world.clock.now() + 2 * HOUR}
    consented = await under_consent(world, ann, marketer, **ended)
    await world.as_customer(bob).rule("ALLOW", rule_terms())
    (by_rule,) = await world.permits(marketer, [bob], E1, world.terms(**ended))

    assert [EXPIRED, EXPIRED] == [await refusal(world, consented), await refusal(world, by_rule)]


async def test_suspended_marketer_settles_nothing_until_it_is_reinstated(world: World) -> None:
    marketer = Asker()
    entry, other = await under_consent(world, Person(), marketer), await under_consent(world, Person(), Asker())
    suspended, reinstated = (
        identitypb.MarketerChanged(marketer=marketer.name, suspended=suspended) for suspended in (True, False)
    )

    async with world.running("hear_identity"):
        await world.hear("identity", 1, suspended)
        await until(world.suspended)
        assert NOT_CONSENTED == await refusal(world, entry)
        assert SETTLED == (await world.settle(other))[0].refusal
        await world.hear("identity", 2, reinstated)
        await until(lambda: no(world.suspended()))

    assert SETTLED == (await world.settle(entry))[0].refusal


async def no(count: Awaitable[int]) -> bool:
    return not await count


async def test_nothing_settles_while_an_event_waits_too_long_for_the_log(world: World) -> None:
    settled, entry = [await under_consent(world, Person(), Asker()) for _ in range(2)]
    await world.settle(settled)
    await _age(world, timedelta(seconds=59))
    assert SETTLED == (await world.settle(settled))[0].refusal

    await _age(world, timedelta(seconds=2))
    unnumbered = [await refusal(world, each) for each in (settled, entry)]
    await world.db.execute("UPDATE outbox SET stream_seq = id")
    unlogged = await refusal(world, entry)

    assert ([BEHIND, BEHIND], BEHIND) == (unnumbered, unlogged)


async def _age(world: World, by: timedelta) -> None:
    await world.db.execute("UPDATE outbox SET occurred_at = occurred_at - $1::interval", by)


async def test_settling_goes_on_once_audit_has_logged_what_waited(world: World) -> None:
    entry = await under_consent(world, Person(), Asker())
    await _age(world, HOUR)
    await world.db.execute("UPDATE outbox SET stream_seq = id")
    last = await world.db.fetchval("SELECT max(id) FROM outbox")

    async with world.running("hear_audit"):
        await world.hear("audit", 1, auditpb.StreamLogged(service="vault", seq=last + 1))
        await world.hear("audit", 2, auditpb.StreamLogged(service="consent", seq=last - 1))
        await until(lambda: _logged(world, last - 1))
        behind = await refusal(world, entry)
        await world.hear("audit", 3, auditpb.StreamLogged(service="consent", seq=last))
        await until(lambda: _logged(world, last))

    assert (BEHIND, SETTLED) == (behind, (await world.settle(entry))[0].refusal)


async def _logged(world: World, seq: int) -> bool:
    return seq == int(await world.db.fetchval("SELECT logged_seq FROM audit_progress"))
