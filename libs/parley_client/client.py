"""A marketer's client."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar
from uuid import UUID

from google.protobuf.message import DecodeError

from parley.audit.v1 import audit_pb2 as auditpb
from parley.audit.v1.audit_pb2_grpc import AuditServiceStub
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.broker.v1.broker_pb2_grpc import BrokerServiceStub
from parley_client.backoff import Backoff
from parley_client.conditions import Condition
from parley_client.connection import Connection, Credential
from parley_client.deliveries import Delivery, Opener
from parley_client.errors import DeliveryInvalid, DeliveryNotFound, ParleyError, ProofNotFound, SettingsInvalid
from parley_client.exchanges import Asked, Exchange, Wanted, audience_of, exchange_from
from parley_client.feed import Feed
from parley_client.receipts import Receipt, Verifier
from parley_client.settings import Settings
from parley_crypto.keyfiles import KeyFileUnusable, read_keys
from parley_crypto.signing import Sealer, Signer
from parley_crypto.tlog.errors import PolicyInvalid
from parley_crypto.trust import Trust, TrustUnusable
from parley_kit.clock import Clock, SystemClock
from parley_kit.coalesce import Coalescer

_MOST_AT_ONCE = 1000
_LOGGED_WITHIN = timedelta(seconds=30)

_T = TypeVar("_T")


class Answer(NamedTuple):
    """
    An exchange with one customer, and the release, if it could be made at once.

    It is not acknowledged yet, and comes on the feed as well unless that is done within half a second: known by its name.
    """

    exchange: Exchange
    delivery: Delivery | None


class Client:
    """
    What a marketer's backend does. An async context manager; one client serves a whole process.

    Calls are retried within their deadline, so a call that raises has failed for good. All methods raise
    :class:`parley_client.errors.ParleyError` by reason.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        """Read keys, trust and policy. Raises SettingsInvalid, which names the file."""
        signer, self._opener, self._verifier = _load(settings)
        self._clock = clock or SystemClock()
        credential = Credential(settings.marketer, signer)
        self.connection = Connection(settings.address, credential, deadline=settings.deadline, clock=self._clock)
        self._acknowledging = Coalescer(self._acknowledge)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Make a client from ``PARLEY_*`` variables. Raises SettingsInvalid, which names what is missing or wrong."""
        return cls(Settings.from_env(environ))

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        self._broker = BrokerServiceStub(self.connection.channel)
        self._audit = AuditServiceStub(self.connection.channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.__aexit__(kind, error, trace)

    async def create_exchange(
        self,
        *,
        purposes: Iterable[str],
        ask: Iterable[Asked],
        valid_for: timedelta | None = None,
        decide_within: timedelta | None = None,
        valid_until: datetime | None = None,
        decide_by: datetime | None = None,
        where: Condition | None = None,
        pseudonyms: Iterable[str] | None = None,
        offer_text: str = "",
        one_time: bool = False,
        offers: bool = True,
        request_id: UUID | None = None,
    ) -> Exchange:
        """
        Ask customers: whoever meets ``where``, or those with these ``pseudonyms``. What comes of it is on the feed.

        :class:`parley_client.exchanges.Wanted` says what the terms mean. A call whose answer is lost may have made the exchange
        all the same: with a ``request_id``, ``valid_until`` and ``decide_by`` it can be made again within a day, even after a
        crash, and makes none twice. Raises VerificationRequired, InvalidConsentPurpose, AttributeUnknown, ValueInvalid,
        InvalidDateRange, ...; ValueError and TypeError for what can't be asked at all.
        """
        wanted = Wanted(purposes, ask, valid_for, decide_within, valid_until, decide_by, one_time, offers)
        request = brokerpb.CreateExchangeRequest(
            terms=wanted.terms(self._clock.now()),
            audience=audience_of(where, pseudonyms),
            offer_text=offer_text,
            request_id=wanted.request_id(request_id),
        )
        return exchange_from((await self._create(request)).exchange)

    async def ask_one(
        self,
        pseudonym: str,
        *,
        purposes: Iterable[str],
        ask: Iterable[Asked],
        valid_for: timedelta | None = None,
        decide_within: timedelta | None = None,
        valid_until: datetime | None = None,
        decide_by: datetime | None = None,
        offer_text: str = "",
        one_time: bool = False,
        offers: bool = True,
        request_id: UUID | None = None,
    ) -> Answer:
        """
        Ask one customer the marketer knows, and get the release in the answer if their terms allow it at once.

        Otherwise the delivery is None, whatever the reason, and may yet come on the feed. Ask for no longer than what was agreed
        lasts (``valid_until=release.expires``), else the customer is asked anew; with ``offers=False`` nobody is. Raises as
        create_exchange, and DeliveryInvalid for a release that isn't this customer's in this exchange.
        """
        wanted = Wanted(purposes, ask, valid_for, decide_within, valid_until, decide_by, one_time, offers)
        request = brokerpb.CreateExchangeRequest(
            terms=wanted.terms(self._clock.now()),
            audience=audience_of(None, [pseudonym]),
            offer_text=offer_text,
            release_in_answer=True,
            request_id=wanted.request_id(request_id),
        )
        answer = await self._create(request)
        if not answer.HasField("delivery"):
            return Answer(exchange_from(answer.exchange), None)
        said = answer.delivery.release
        if (said.exchange, said.pseudonym) != (answer.exchange.name, pseudonym):  # opened, it must say what this says
            raise DeliveryInvalid("the answer is of another exchange, or another customer's")
        return Answer(exchange_from(answer.exchange), self._delivery(answer.delivery))

    async def get_exchange(self, name: str) -> Exchange:
        """One exchange. Raises ExchangeNotFound."""
        request = brokerpb.GetExchangeRequest(name=name)
        return exchange_from(await self.connection.call(self._broker.GetExchange, request, service="broker"))

    async def list_exchanges(self) -> AsyncGenerator[Exchange, None]:
        """All exchanges, newest first, fetched page by page."""
        request = brokerpb.ListExchangesRequest()
        while True:
            page = await self.connection.call(self._broker.ListExchanges, request, service="broker")
            for message in page.exchanges:
                yield exchange_from(message)
            if not page.next_page_token:
                return
            request = brokerpb.ListExchangesRequest(page_token=page.next_page_token)

    async def cancel_exchange(self, name: str) -> Exchange:
        """End an exchange: nothing more is released, but for what is just being settled. Raises ExchangeNotFound."""
        request = brokerpb.CancelExchangeRequest(name=name)
        return exchange_from(await self.connection.call(self._broker.CancelExchange, request, service="broker"))

    async def deliveries(self) -> AsyncGenerator[Delivery, None]:
        """
        The feed: all that isn't acknowledged, oldest first, then whatever comes, for ever.

        It resumes by itself whenever it breaks, and gives each delivery once: what couldn't be kept comes again when this is
        called anew, as after a restart. So a delivery may come twice in all, under one name, and the second time hold what its
        customer has changed meanwhile: keep it by its name, the newer in place of the older. A feed is for one reader: two get
        everything both. Raises only what trying again doesn't mend.
        """
        async with aclosing(Feed(self.connection).follow()) as messages:
            async for message in messages:
                yield self._delivery(message)

    def delivery(self, raw: bytes) -> Delivery:
        """Read what :meth:`Delivery.to_bytes` kept. Raises DeliveryInvalid."""
        try:
            return self._delivery(brokerpb.Delivery.FromString(raw))
        except DecodeError as error:
            raise DeliveryInvalid("these bytes are no delivery") from error

    async def acknowledge(self, *deliveries: Delivery) -> None:
        """
        Say that deliveries are safely kept: they don't come again. Raises DeliveryNotFound.

        Calls that wait at the same time share a request: acknowledge each delivery as soon as it is kept.
        """
        names = [delivery.name for delivery in deliveries]
        for start in range(0, len(names), _MOST_AT_ONCE):
            if failed := await self._acknowledging.submit(names[start : start + _MOST_AT_ONCE]):
                raise failed

    async def verify_receipt(self, delivery: Delivery, *, wait: timedelta = _LOGGED_WITHIN) -> Receipt:
        """
        Fetch the proof that a delivery is in the audit log, and check it against the pinned policy.

        What was just delivered takes some seconds to get there: it waits. Raises ProofNotFound after that, ReceiptInvalid
        for a proof that doesn't hold or says otherwise, DeliveryInvalid as opening does.
        """
        return self._verifier.check(delivery, await self._proof(delivery.opening.commitment, wait))

    async def save_receipt(self, delivery: Delivery, directory: Path) -> tuple[Path, ...]:
        """
        Verify a delivery's receipt and keep it as four files, in a directory of its own, for `parley verify`.

        Raises as verify_receipt does, and FileExistsError where another's receipt is kept there.
        """
        receipt = await self.verify_receipt(delivery)
        return await asyncio.to_thread(receipt.save, directory)

    async def _acknowledge(self, calls: Sequence[Sequence[str]]) -> list[ParleyError | None]:
        """Acknowledge for all calls that wait, in as few requests as hold them; answers what each failed with."""
        return [failed for together in _in_requests(calls) for failed in await self._acknowledge_together(together)]

    async def _acknowledge_together(self, calls: Sequence[Sequence[str]]) -> list[ParleyError | None]:
        failed = await self._acknowledge_all([name for call in calls for name in call])
        if not isinstance(failed, DeliveryNotFound) or len(calls) == 1:
            return [failed] * len(calls)
        return [await self._acknowledge_all(call) for call in calls]  # one of them named what isn't there

    async def _acknowledge_all(self, names: Sequence[str]) -> ParleyError | None:
        request = brokerpb.AcknowledgeDeliveriesRequest(names=names)
        try:
            await self.connection.call(self._broker.AcknowledgeDeliveries, request, service="broker")
        except ParleyError as failed:
            return failed
        return None

    async def _create(self, request: brokerpb.CreateExchangeRequest) -> brokerpb.CreateExchangeResponse:
        return await self.connection.call(self._broker.CreateExchange, request, service="broker")

    async def _proof(self, commitment: bytes, wait: timedelta) -> auditpb.GetProofResponse:
        loop, backoff, failures = asyncio.get_running_loop(), Backoff(), 0
        until = loop.time() + wait.total_seconds()
        while True:
            try:
                return await self.connection.call(self._audit.GetProof, auditpb.GetProofRequest(commitment=commitment))
            except ProofNotFound:
                failures += 1
                delay = backoff.delay(failures)
                if loop.time() + delay > until:
                    raise
            await asyncio.sleep(delay)

    def _delivery(self, message: brokerpb.Delivery) -> Delivery:
        return Delivery(message, self._opener)


def _in_requests(calls: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """The calls in their order, as many together as one request holds."""
    requests: list[list[Sequence[str]]] = []
    held = 0
    for call in calls:
        if not requests or held + len(call) > _MOST_AT_ONCE:
            requests.append([])
            held = 0
        requests[-1].append(call)
        held += len(call)
    return requests


def _load(settings: Settings) -> tuple[Signer, Opener, Verifier]:
    try:
        sealers = [Sealer(key) for key in reversed(read_keys(settings.sealing_key_file).values())]
        opener = Opener(settings.marketer, sealers, _used(settings.trust_file, _trust))
        return Signer.load(settings.signing_key_file), opener, _used(settings.policy_file, Verifier)
    except KeyFileUnusable as error:
        raise SettingsInvalid(str(error)) from error


def _trust(content: bytes) -> Trust:
    return Trust.parse(content.decode())


def _used(path: Path, read: Callable[[bytes], _T]) -> _T:
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"{path}: can't be read: {error.strerror}") from error
    except (TrustUnusable, PolicyInvalid, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: {error}") from error
