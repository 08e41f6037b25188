"""A marketer's feed as one endless stream: it comes back by itself after whatever breaks it, from where it was."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from enum import Enum

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.broker.v1.broker_pb2_grpc import BrokerServiceStub
from parley_client import errors
from parley_client.backoff import Backoff
from parley_client.connection import Connection, Stream

SILENCE = timedelta(seconds=45)
"""Three heartbeats: a feed that says nothing for so long is dead, whatever TCP believes."""

_REMEMBERED = 10_000

_log = logging.getLogger("parley_client")


class Next(Enum):
    """What to do after a feed broke."""

    RESUME = "resume"
    SIGN_IN = "sign in"
    START_OVER = "start over"
    GIVE_UP = "give up"


_PASSING = (
    errors.Unavailable,
    errors.ClocksApart,
    errors.Conflict,
    errors.DeadlineExceeded,
    errors.DeadlineTooShort,
    errors.Interrupted,
    errors.TooManyCalls,
)
_MOST_CRASHES = 3
"""In a row, and nothing between: what fails so often is no accident, and somebody should see its error id."""


def is_passing(error: errors.ParleyError) -> bool:
    """Whether trying again helps: also with what stands between, which changes, as in a rollout."""
    return isinstance(error, _PASSING) or error.is_foreign


def after(error: errors.ParleyError, *, resumed: bool, refused: bool, crashes: int = 0) -> Next:
    """
    Decide what follows an error.

    ``resumed``: the feed was opened with a resume token. ``refused``: the access token was refused before, and nothing came
    since. ``crashes``: how often the server failed by itself before, likewise.
    """
    if is_passing(error) or (isinstance(error, errors.Internal) and crashes < _MOST_CRASHES):
        return Next.RESUME
    if isinstance(error, errors.ResumeTokenInvalid) and resumed:
        return Next.START_OVER  # what isn't acknowledged comes again, so nothing is lost
    if isinstance(error, errors.Unauthenticated) and not refused:
        return Next.SIGN_IN
    return Next.GIVE_UP


class Feed:
    """
    One subscription. ``silence`` is how long a feed may say nothing before it is opened anew.

    A delivery is given once, though the broker may send it again; the memory for that is bounded, so whoever handles
    deliveries had better bear a repeat, as after a restart.
    """

    def __init__(self, connection: Connection, *, silence: timedelta = SILENCE, backoff: Backoff | None = None) -> None:
        self._connection = connection
        self._silence = silence.total_seconds()
        self._backoff = backoff or Backoff(most=10.0)
        self._stream: Stream[brokerpb.DeliveriesResponse] | None = None
        self._place = ""
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._failures = 0
        self._refused = False
        self._crashes = 0

    async def follow(self) -> AsyncGenerator[brokerpb.Delivery, None]:
        """Releases and notices, oldest first, for ever. Raises ParleyError for what trying again doesn't mend."""
        try:
            while True:
                for delivery in await self._next():
                    if self._is_new(delivery):
                        yield delivery
        finally:
            self._drop()

    async def _next(self) -> Sequence[brokerpb.Delivery]:
        """What the next message brings; nothing where the feed broke, and is to be opened anew."""
        try:
            self._stream = self._stream or await self._open()
        except errors.ParleyError as error:
            if not is_passing(error):  # any other error of signing in is final
                raise
            await self._broken(error.reason, error.retry_after)
            return ()
        try:
            async with asyncio.timeout(self._silence):
                message = await self._stream.read()
        except TimeoutError:
            await self._broken("silence")
        except errors.ParleyError as error:
            await self._failed(error)
        else:
            return await self._taken(message)
        return ()

    async def _taken(self, message: brokerpb.DeliveriesResponse | None) -> Sequence[brokerpb.Delivery]:
        if message is None:
            await self._broken("end of stream")
            return ()
        self._place = message.deliveries[-1].resume_token if message.deliveries else self._place
        if self._failures > 1:
            _log.info("deliveries resumed")
        self._failures, self._refused, self._crashes = 0, False, 0
        return message.deliveries

    async def _open(self) -> Stream[brokerpb.DeliveriesResponse]:
        request = brokerpb.DeliveriesRequest(resume_token=self._place)
        method = BrokerServiceStub(self._connection.channel).Deliveries
        return await self._connection.open(method, request, service="broker")

    async def _failed(self, error: errors.ParleyError) -> None:
        match after(error, resumed=bool(self._place), refused=self._refused, crashes=self._crashes):
            case Next.GIVE_UP:
                raise error
            case Next.START_OVER:
                self._place = ""
            case Next.SIGN_IN:
                self._refused = True
        self._crashes += isinstance(error, errors.Internal)
        said = filter(None, (error.reason, error.metadata.get("error_id")))  # nothing else that came goes into a log
        await self._broken(" ".join(said), error.retry_after)

    async def _broken(self, reason: str, retry_after: float | None = None) -> None:
        self._drop()
        self._failures += 1
        delay = self._backoff.delay(self._failures, retry_after)
        # Once is no more than a server that ends old connections, as it does every few minutes.
        level = logging.INFO if self._failures == 1 else logging.WARNING
        _log.log(level, "deliveries interrupted (%s), resuming in %.1f s", reason, delay)
        await asyncio.sleep(delay)

    def _is_new(self, message: brokerpb.Delivery) -> bool:
        match message.WhichOneof("payload"):
            case "heartbeat":
                return False
            case None:
                # From a newer Parley. It isn't acknowledged, so it comes again to a version that can read it.
                _log.warning("a delivery of a kind this version doesn't know was left on the feed")
                return False
        if message.name in self._seen:
            return False
        self._seen[message.name] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
