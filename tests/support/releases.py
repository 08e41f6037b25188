"""Permits of releases, how they come about, and what becomes of them, in short words."""

from collections.abc import Iterable
from typing import Any

from parley.common.v1 import receipt_pb2 as receiptpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from tests.support.consent import Asker, Person, World, rule_terms

E1, E2, E3 = "exchanges/first", "exchanges/second", "exchanges/third"
SETTLED = consentpb.SETTLE_REFUSAL_UNSPECIFIED
STALE, NOT_CONSENTED, USED, EXPIRED, BEHIND, INVALID, PAUSED, BUSY = (
    consentpb.SETTLE_REFUSAL_STALE,
    consentpb.SETTLE_REFUSAL_NOT_CONSENTED,
    consentpb.SETTLE_REFUSAL_USED,
    consentpb.SETTLE_REFUSAL_EXPIRED,
    consentpb.SETTLE_REFUSAL_AUDIT_BEHIND,
    consentpb.SETTLE_REFUSAL_PERMIT_INVALID,
    consentpb.SETTLE_REFUSAL_PAUSED,
    consentpb.SETTLE_REFUSAL_BUSY,
)
ALLOWED, ASKED, REFUSED, LATER = (
    consentpb.DECISION_OUTCOME_ALLOWED,
    consentpb.DECISION_OUTCOME_ASKED,
    consentpb.DECISION_OUTCOME_REFUSED,
    consentpb.DECISION_OUTCOME_LATER,
)


async def under_consent(world: World, ann: Person, marketer: Asker, **changes: Any) -> consentpb.SettleEntry:
    """A permit of a later exchange, under a consent that was accepted."""
    asked = world.terms(**changes)
    await world.consented(marketer, [ann], E1, asked)
    return (await world.permits(marketer, [ann], E2, asked))[0]


async def under_rule(world: World, ann: Person, marketer: Asker, exchange: str = E1) -> consentpb.SettleEntry:
    """A permit under an allow rule."""
    await world.as_customer(ann).rule("ALLOW", rule_terms())
    return (await world.permits(marketer, [ann], exchange))[0]


async def once_released(world: World, ann: Person, marketer: Asker) -> tuple[termspb.Terms, consentpb.SettleEntry]:
    """What was asked for, and the permit of its release, settled in the first exchange under a consent for one time."""
    once = world.terms(use=termspb.USE_ONE_TIME)
    await world.consented(marketer, [ann], E1, once)
    return once, await _settled(world, ann, marketer, once)


async def once_released_by_rule(
    world: World, ann: Person, marketer: Asker
) -> tuple[termspb.Terms, consentpb.SettleEntry]:
    """As above, under a rule for one time."""
    await world.as_customer(ann).rule("ALLOW", rule_terms(use=termspb.USE_ONE_TIME))
    once = world.terms(use=termspb.USE_ONE_TIME)
    return once, await _settled(world, ann, marketer, once)


async def _settled(world: World, ann: Person, marketer: Asker, once: termspb.Terms) -> consentpb.SettleEntry:
    (entry,) = await world.permits(marketer, [ann], E1, once)
    assert SETTLED == (await world.settle(entry))[0].refusal
    return entry


async def released(world: World) -> list[receiptpb.AuditNote]:
    events = await world.events("ReleaseSettled")
    return [note for each in events for note in eventspb.ReleaseSettled.FromString(each.payload).notes]


async def born(world: World) -> list[receiptpb.AuditNote]:
    events = await world.events("ConsentBorn")
    return [note for each in events for note in eventspb.ConsentBorn.FromString(each.payload).notes]


async def much_released(world: World, consent: consentpb.Consent, count: int) -> list[str]:
    """Have had so many releases made under a consent; their ids, newest first."""
    query = """
        INSERT INTO settlements (customer, release_id, consent_id, exchange, one_time, settled_at, salt, detail)
        SELECT customer, left(consent_id, 16) || translate(lpad(nth::text, 16, '0'), '0189', 'abcd'), consent_id,
            'exchanges/' || nth, false, created_at + nth / 2 * interval '1 s', '', ''
        FROM consents, generate_series(1, $2) AS nth WHERE consent_id = $1
        RETURNING release_id, settled_at
    """
    made = await world.db.fetch(query, consent.name.partition("/")[2], count)
    return [
        row["release_id"] for row in sorted(made, key=lambda row: (row["settled_at"], row["release_id"]), reverse=True)
    ]


def ids(settlements: Iterable[consentpb.Settlement]) -> list[str]:
    """Of what releases settlements are."""
    return [one.release_id for one in settlements]
