"""
Postgres behind one seam.

Whoever waits for a connection waits at most two seconds; whatever the server does when it stops, crashes or starts comes
out as :class:`parley_kit.faults.Unavailable`; serialization failures and deadlocks are retried, then come out as
:class:`parley_kit.faults.Conflict`. All other errors pass. Transactions are READ COMMITTED.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, LiteralString, Protocol, TypeVar, cast

import asyncpg

from parley_db.connections import LONGEST_CLOSE, PATIENCE_S, Connections, drop, is_lost
from parley_db.queries import load
from parley_kit.completion import begun, to_the_end
from parley_kit.faultpoints import reach
from parley_kit.faults import Conflict, Unavailable
from parley_kit.telemetry import SILENT, Telemetry

T = TypeVar("T")
_SQL = load("parley_db")
TRIES = 5
LONGEST_ACQUIRE = 2.0
LONGEST_STATEMENT = 30.0
"""Seconds. A statement that waits longer, for a lock or for a server that hangs, is given up."""
LONGEST_SILENCE = 15.0
"""Seconds. A transaction whose process says nothing for longer is ended: its machine is gone, and its locks hold others up."""

_RETRY_AFTER = 0.2
_ROLL_BACK_S = 0.05
_PLANS = {
    "plan_cache_mode": "force_generic_plan",  # planning took half of a statement's time
    # Whatever is asked here is asked by key. The planner can't know how many keys an array will bring, nor how much a table that
    # it last saw empty will hold: it goes through tables whole, for a statement or even for each key, and remembers that way.
    # What such a plan costs grows with the number of customers. A merge walks along an index up to the last key it looks for.
    # Joins by hash stay: without them what an array brings would be compared with each of its own rows.
    "enable_seqscan": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "random_page_cost": "1.1",
}
_KEEPALIVES = {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""So that PostgreSQL lets go of a connection within half a minute of its machine being gone; Linux would take two hours."""
_REFUSED = (
    asyncpg.ClientConfigurationError,  # no URL at all
    asyncpg.InvalidAuthorizationSpecificationError,  # 28: role and password
    asyncpg.InvalidCatalogNameError,  # 3D: no such database
)
_CONTENDED = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_AWAY = (
    asyncpg.PostgresConnectionError,  # 08: the connection broke
    asyncpg.InsufficientResourcesError,  # 53: disk full, out of memory, too many connections
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,  # starting up or recovering
    asyncpg.ReadOnlySQLTransactionError,  # a replica: the primary has moved
    asyncpg.LockNotAvailableError,  # within the lock_timeout
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process stood still in the midst of it
    ConnectionError,
    TimeoutError,
)


class DatabaseUnusable(Exception):
    """PostgreSQL is there, and lets nobody in who comes as the settings say."""

    def __init__(self, error: Exception) -> None:
        # Not what the error says: there may be a password in it.
        super().__init__(
            f"the database can't be entered ({type(error).__name__}): see to its URL, role and password file"
        )


class Tx(Protocol):
    """An open transaction: the part of an asyncpg connection that its body may use."""

    async def execute(self, query: LiteralString, /, *args: Any) -> str:
        """Run a statement; answers its command tag (``UPDATE 3``)."""

    async def executemany(self, command: LiteralString, args: Iterable[Sequence[Any]], /) -> None:
        """Run a statement once for each tuple of arguments."""

    async def fetch(self, query: LiteralString, /, *args: Any) -> list[Any]:
        """All rows (asyncpg Records: by name or index)."""

    async def fetchrow(self, query: LiteralString, /, *args: Any) -> Any:
        """The first row, or None."""

    async def fetchval(self, query: LiteralString, /, *args: Any) -> Any:
        """The first column of the first row, or None."""

    async def copy_records_to_table(
        self,
        table_name: str,
        /,
        *,
        records: Iterable[Sequence[Any]],
        columns: Sequence[str] | None = None,
    ) -> str:
        """COPY tuples into a table; answers its command tag."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A savepoint."""


class Database:
    """One service's database. Build it with :meth:`open`; it needs no server until it is used."""

    def __init__(self, connections: Connections, telemetry: Telemetry = SILENT) -> None:
        self._connections = connections
        self._meter, self._tracer = telemetry.meter, telemetry.tracer
        self._meter.pool(lambda: connections.lent)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        *,
        application_name: str,
        max_size: int = 16,
        telemetry: Telemetry = SILENT,
    ) -> AsyncIterator["Database"]:
        """
        Keep a pool of up to ``max_size`` connections for the length of a block.

        Opening succeeds while Postgres is away, so that services start in any order.
        """
        pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=max_size,
            command_timeout=LONGEST_STATEMENT,
            reset=_keep_session,
            server_settings={
                "application_name": application_name,
                "idle_in_transaction_session_timeout": f"{LONGEST_SILENCE * 1000:.0f}ms",
                **_KEEPALIVES,
                **_PLANS,
            },
        )
        await pool
        connections = Connections(pool, LONGEST_ACQUIRE)
        try:
            yield cls(connections, telemetry)
        finally:
            await _close(connections)

    @asynccontextmanager
    async def tx(self, name: str) -> AsyncIterator[Tx]:
        """
        Run the block in one transaction: all of it commits, or nothing.

        ``name`` names it in metrics and as fault points ``<name>.before_commit`` and ``<name>.after_commit``. Once
        COMMIT is sent, a cancelled caller still waits for its outcome, but for no silent server's. Raises Unavailable
        (outcome unknown if it comes from COMMIT itself) and Conflict.
        """
        with _as_conflict():
            async with self._attempt(name) as tx:
                yield tx

    async def run(self, name: str, body: Callable[[Tx], Awaitable[T]]) -> T:
        """
        Run ``body`` in a transaction named ``name``, again where it collided with another, five times at most.

        The body must leave nothing outside the transaction that a second run would trip over. Raises as :meth:`tx`.
        """

        async def attempt() -> T:
            async with self._attempt(name) as tx:
                return await body(tx)

        return await _retried(attempt)

    async def execute(self, query: LiteralString, *args: Any) -> str:
        """Run one autocommitted statement; answers its command tag. Raises Unavailable and Conflict."""
        return await self._autocommit(lambda tx: tx.execute(query, *args))

    async def fetch(self, query: LiteralString, *args: Any) -> list[Any]:
        """All rows of one autocommitted statement. Raises Unavailable and Conflict."""
        return await self._autocommit(lambda tx: tx.fetch(query, *args))

    async def fetchrow(self, query: LiteralString, *args: Any) -> Any:
        """The first row of one autocommitted statement, or None. Raises Unavailable and Conflict."""
        return await self._autocommit(lambda tx: tx.fetchrow(query, *args))

    async def fetchval(self, query: LiteralString, *args: Any) -> Any:
        """The first column of :meth:`fetchrow`, or None. Raises Unavailable and Conflict."""
        return await self._autocommit(lambda tx: tx.fetchval(query, *args))

    async def ping(self) -> None:
        """Ask Postgres for a sign of life. Raises Unavailable."""
        await self.fetchval(_SQL.ping)

    async def _autocommit(self, statement: Callable[[Tx], Awaitable[T]]) -> T:
        async def attempt() -> T:
            async with self._connection() as connection:
                return await statement(connection)

        return await _retried(attempt)

    @asynccontextmanager
    async def _attempt(self, name: str) -> AsyncIterator[Tx]:
        with self._tracer.inside(name):
            async with self._connection() as connection:
                transaction, lent = connection.transaction(isolation="read_committed"), _Lent(connection)
                # Otherwise every caller who goes away costs a connection; one whom a silent server keeps waiting still does.
                to_its_end = partial(to_the_end, patience=PATIENCE_S, give_up=partial(drop, connection))
                try:
                    await to_its_end(transaction.start())
                    yield cast("Tx", lent)
                    lent.end()
                    await reach(f"{name}.before_commit")
                except asyncio.CancelledError:
                    lent.end()
                    await self._leave(connection, _roll_back(connection, transaction))
                    raise
                except BaseException:
                    lent.end()
                    await to_its_end(_roll_back(connection, transaction))
                    raise
                await to_its_end(transaction.commit())
                await reach(f"{name}.after_commit")

    async def _leave(self, connection: Any, undoing: Awaitable[None]) -> None:
        """
        Undo what a cancelled caller had begun, whose statement may have to be stopped first.

        What isn't done in a moment is for whoever releases the connection: to lose it now would let the statement go on.
        """
        task = begun(undoing)
        try:
            await asyncio.wait({task}, timeout=_ROLL_BACK_S)
        finally:
            if not task.done():
                self._connections.release_behind(task, connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """The one place where a connection is waited for, and where its errors get their meaning."""
        connection, is_good = await self._acquire(), False
        try:
            yield connection
            is_good = True
        except _AWAY as error:
            raise Unavailable(retry_after=_RETRY_AFTER) from error
        except asyncpg.InternalClientError as error:
            # "Another operation is in progress": the server has said goodbye to an idle connection, and not yet hung up.
            drop(connection)
            raise Unavailable(retry_after=_RETRY_AFTER) from error
        except asyncpg.InterfaceError as error:
            # asyncpg uses this one class for a lost connection and for a caller's mistake.
            if is_lost(connection):
                raise Unavailable(retry_after=_RETRY_AFTER) from error
            raise
        finally:
            await self._connections.give_back(connection, is_good=is_good)

    async def _acquire(self) -> Any:
        started = time.monotonic()
        try:
            return await self._connections.take()
        except _REFUSED as error:
            raise DatabaseUnusable(error) from error
        except (*_AWAY, OSError) as error:
            raise Unavailable(retry_after=_RETRY_AFTER) from error
        except asyncpg.InterfaceError as error:
            if self._connections.is_closing():
                raise Unavailable(retry_after=_RETRY_AFTER) from error
            raise
        finally:
            self._meter.connection(time.monotonic() - started)


class _Lent:
    """A connection for as long as a transaction's body runs: whoever holds on to it must not be in the next one's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def end(self) -> None:
        """It is over."""
        self._connection = None

    def __getattr__(self, name: str) -> Any:
        if self._connection is None:
            raise asyncpg.InterfaceError("the transaction is over")
        return getattr(self._connection, name)


def is_locked(fault: Unavailable) -> bool:
    """Whether it is no more than a lock that wasn't got within the statement's ``lock_timeout``."""
    return isinstance(fault.__cause__, asyncpg.LockNotAvailableError)


async def _keep_session(_connection: Any) -> None:
    """
    Leave the session as it is when a connection goes back to the pool.

    asyncpg itself ends an open transaction first. Nothing here sets session state (SET LOCAL only, no session locks,
    no LISTEN), so its RESET ALL would be one more round trip in every transaction.
    """


async def _close(connections: Connections) -> None:
    with suppress(TimeoutError):  # then they are closed all the same
        async with asyncio.timeout(LONGEST_CLOSE):
            await connections.close()


async def _roll_back(connection: Any, transaction: Any) -> None:
    """Undo what was begun, or lose the connection."""
    try:
        async with asyncio.timeout(LONGEST_CLOSE):
            await transaction.rollback()
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        # The error under way says more than this one; the server rolls back what it loses.
        drop(connection)


@contextmanager
def _as_conflict() -> Iterator[None]:
    try:
        yield
    except _CONTENDED as error:
        raise Conflict(retry_after=_RETRY_AFTER) from error


async def _retried(attempt: Callable[[], Awaitable[T]]) -> T:
    for tries in range(1, TRIES):
        try:
            return await attempt()
        except _CONTENDED:
            await asyncio.sleep(_pause(tries, random.random()))  # noqa: S311 - jitter
    with _as_conflict():
        return await attempt()


def _pause(tries: int, jitter: float) -> float:
    """Seconds before the next try: at most 10, 20, 40, 80 ms, anywhere in the range so that rivals part."""
    return 0.005 * 2.0**tries * jitter
