"""The services that broker conducts, in our types and faults."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_crypto.jws import StatementNotCurrent
from parley_crypto.statements import CARD_LIFE, Card, verify_card
from parley_crypto.trust import Trust
from parley_kit.faults import Code, Unavailable
from parley_rpc.deadlines import call
from parley_rpc.platform import Platform
from parley_terms.values import Catalogue
from parley_terms.wire import attribute_from

FOR_GOOD = frozenset({Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND})
"""What no repeat mends: the same request is refused again, at everybody's cost."""
_BATCH_TIMEOUT_S = 20.0
_CARD_REFRESH = CARD_LIFE / 12
"""A card is fetched anew this long after it was issued: so long, at the most, a change at identity takes to arrive."""
_CLOCKS_DIFFER = "Broker and identity don't agree on the time to a few seconds: their operator has to set a clock."
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class HeldCard:
    """A marketer's card, checked, and when it was fetched."""

    statement: str
    card: Card
    fetched_at: datetime


class Identity:
    """identity: cards and introductions."""

    def __init__(self, platform: Platform, trust: Trust) -> None:
        self._stub = IdentityServiceStub(platform.channel("identity"))
        self._trust, self._clock = trust, platform.clock
        self._cards: dict[str, HeldCard] = {}

    async def card(self, marketer: str) -> HeldCard:
        """A marketer's card, fresh enough to rely on. Raises what identity raises (unknown, suspended)."""
        now = self._clock.now()
        held = self._cards.get(marketer)
        if held is None or not timedelta() <= now - held.fetched_at <= _CARD_REFRESH:  # a clock may be set back
            answer = await call(self._stub.GetMarketerCard, identitypb.GetMarketerCardRequest(name=marketer))
            try:
                card = verify_card(answer.card, self._trust.keys("identity"), now)
            except StatementNotCurrent as error:  # seconds between two clocks are enough
                raise Unavailable(_CLOCKS_DIFFER, retry_after=_AGAIN_S) from error
            held = self._cards[marketer] = HeldCard(answer.card, card, now)
        return held

    async def introduce(
        self, marketer: str, exchange: str, candidates: Sequence[bytes]
    ) -> list[identitypb.Introduction]:
        """Introduce candidates; those whom nobody may be introduced to are left out."""
        request = identitypb.IntroduceRequest(marketer=marketer, exchange=exchange, candidate_refs=candidates)
        answer = await call(self._stub.Introduce, request, timeout=_BATCH_TIMEOUT_S)
        return [one for one in answer.introductions if one.pseudonym]


class Vault:
    """vault: the catalogue, matching, and releases."""

    def __init__(self, platform: Platform) -> None:
        self._stub = VaultServiceStub(platform.channel("vault"))
        self._catalogue: Catalogue | None = None

    async def catalogue(self) -> Catalogue:
        """The attributes that may be asked for; read once, since it changes only with a new start of vault."""
        if self._catalogue is None:
            answer = await call(self._stub.ListAttributes, vaultpb.ListAttributesRequest())
            self._catalogue = {one.name: attribute_from(one) for one in answer.attributes}
        return self._catalogue

    async def match(self, card: str, exchange: str, criteria: termspb.Criteria, token: str) -> vaultpb.MatchResponse:
        """A page of candidates."""
        request = vaultpb.MatchRequest(marketer_card=card, exchange=exchange, criteria=criteria, page_token=token)
        return await call(self._stub.Match, request, timeout=_BATCH_TIMEOUT_S)

    async def release(
        self, batch: permitpb.PermitBatch, entries: Sequence[vaultpb.ReleaseEntry]
    ) -> Sequence[vaultpb.ReleaseOutcome]:
        """Open what permits allow, in the order asked."""
        request = vaultpb.ReleaseRequest(batch=batch, entries=entries)
        return (await call(self._stub.Release, request, timeout=_BATCH_TIMEOUT_S)).outcomes


class Consent:
    """consent: decisions and settlements."""

    def __init__(self, platform: Platform) -> None:
        self._stub = ConsentServiceStub(platform.channel("consent"))

    async def decide(self, request: consentpb.DecideRequest) -> consentpb.DecideResponse:
        """Decide about customers, in the order asked."""
        return await call(self._stub.Decide, request, timeout=_BATCH_TIMEOUT_S)

    async def decide_each(self, requests: Sequence[consentpb.DecideRequest]) -> consentpb.BatchDecideResponse:
        """Decide several requests, in the order asked, with one batch of permits for all."""
        request = consentpb.BatchDecideRequest(requests=requests)
        return await call(self._stub.BatchDecide, request, timeout=_BATCH_TIMEOUT_S)

    async def settle(self, entries: Sequence[consentpb.SettleEntry]) -> Sequence[consentpb.SettleOutcome]:
        """Commit releases or refuse them, in the order asked."""
        answer = await call(self._stub.Settle, consentpb.SettleRequest(entries=entries), timeout=_BATCH_TIMEOUT_S)
        return answer.outcomes


@dataclass(frozen=True)
class Peers:
    """The services that broker calls."""

    identity: Identity
    vault: Vault
    consent: Consent
