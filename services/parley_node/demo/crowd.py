"""The demo's customers: each claims their account, sets switches and rules, and answers offers, over their own RPCs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

import grpc

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_client.connection import Connection
from parley_crypto.signing import Signer
from parley_node import people

_AT_ONCE = 24
T = TypeVar("T")


class Temper(StrEnum):
    """How a customer takes to being asked."""

    ALLOWS = "allows by a rule"
    REFUSES = "refuses by a rule"
    ACCEPTS = "accepts the offer"
    DECLINES = "declines the offer"
    LEAVES = "leaves it unread"


_WEIGHTS = {Temper.ALLOWS: 8, Temper.REFUSES: 10, Temper.ACCEPTS: 50, Temper.DECLINES: 17, Temper.LEAVES: 15}


@dataclass(frozen=True)
class Member:
    """One customer of the crowd."""

    row: str
    name: str
    signer: Signer
    temper: Temper


@dataclass(frozen=True)
class Crowd:
    """Customers acting at once, over one channel."""

    address: str
    channel: grpc.aio.Channel

    async def claim(self, codes: Mapping[str, str], seed: int, done: Callable[[], None]) -> list[Member]:
        """Claim every account by its code. Who has which temper is the seed's choice, so that one seed is one story."""
        dice = random.Random(seed)  # noqa: S311 - a story, not a secret
        tempers = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=len(codes))

        async def one(row: str, code: str, temper: Temper) -> Member:
            signer = people.new_signer()
            async with Connection(self.address, channel=self.channel) as connection:
                name = await people.claim(connection, code, signer)
            done()
            return Member(row, name, signer, temper)

        return await together(
            one(row, code, temper) for (row, code), temper in zip(codes.items(), tempers, strict=True)
        )

    async def settle_in(
        self, members: Sequence[Member], attributes: Sequence[str], allowed: termspb.Terms, done: Callable[[], None]
    ) -> None:
        """Let verified marketers match on some attributes, and set the rules that tempers call for."""

        async def one(member: Member) -> None:
            async with people.customer(self.address, member.name, member.signer, self.channel) as customer:
                there = {item.attribute for item in await customer.items()}
                for attribute in attributes:
                    if attribute in there:
                        await customer.discoverable(attribute, termspb.VERIFICATION_LEVEL_VERIFIED)
                if member.temper in (Temper.ALLOWS, Temper.REFUSES):
                    await customer.add_rule(_rule(member.temper, allowed))
            done()

        await together(one(member) for member in members)

    async def answer(self, members: Sequence[Member], done: Callable[[], None]) -> dict[str, consentpb.Offer]:
        """Everyone looks into their inbox and answers as they are; returns the offers found, by member's name."""
        found: dict[str, consentpb.Offer] = {}

        async def one(member: Member) -> None:
            async with people.customer(self.address, member.name, member.signer, self.channel) as customer:
                for offer in await customer.offers():
                    found[member.name] = offer
                    if member.temper is Temper.ACCEPTS:
                        await customer.accept(offer.name)
                    elif member.temper is Temper.DECLINES:
                        await customer.refuse(offer.name)
            done()

        await together(one(member) for member in members)
        return found


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all of it, so many at once; results in the order given. What isn't begun isn't asked for, and so not left unawaited."""
    results: dict[int, T] = {}
    numbered = enumerate(work)

    async def worker() -> None:
        for number, item in numbered:
            results[number] = await item

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    return [results[number] for number in sorted(results)]


def standing_terms(purposes: Iterable[str], fields: Iterable[str]) -> termspb.Terms:
    """What an allowing rule allows: these attributes, exact and any question about them, for these purposes, for a year."""
    terms = termspb.Terms(purposes=purposes)
    for attribute in fields:
        terms.content.fields.add(attribute=attribute, form=termspb.FORM_EXACT)
    terms.mode.channels.extend([termspb.CHANNEL_DATA, termspb.CHANNEL_WEB_INBOX])
    terms.timing.validity.end_time.FromDatetime(datetime.now(UTC) + timedelta(days=365))
    return terms


def _rule(temper: Temper, allowed: termspb.Terms) -> consentpb.Rule:
    everyone = consentpb.RuleScope(everyone=consentpb.Everyone())
    if temper is Temper.REFUSES:
        refused = termspb.Terms(purposes=allowed.purposes)
        return consentpb.Rule(effect=consentpb.RULE_EFFECT_REFUSE, scope=everyone, terms=refused)
    verified = consentpb.RuleScope(least_level=termspb.VERIFICATION_LEVEL_VERIFIED)
    return consentpb.Rule(effect=consentpb.RULE_EFFECT_ALLOW, scope=verified, terms=allowed)
