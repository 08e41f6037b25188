"""
The node under load, with clocks around what an exchange passes: ``python -m tests.bench.steps HOME FILE``.

They are around calls that are answered and statements that are made; an exchange takes hardly longer for it. When the node ends,
each step is a line of the file: its name, and when it began and ended, in seconds.
"""

import asyncio
import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from parley_broker.servicer import BrokerServicer
from parley_consent.servicer import ConsentServicer
from parley_db.database import Database
from parley_db.queries import load
from parley_vault.servicer import VaultServicer
from tests.bench.node import main

CALLS: Mapping[str, type] = {
    "broker.CreateExchange": BrokerServicer,
    "consent.BatchDecide": ConsentServicer,
    "vault.Release": VaultServicer,
    "consent.Settle": ConsentServicer,
    "broker.AcknowledgeDeliveries": BrokerServicer,
}
"""RPCs that an exchange with the release in its answer goes through, in their order."""

STATEMENTS: Mapping[str, str] = {
    "exchanges_create": "broker",
    "standing": "consent",
    "items_sealed": "vault",
    "settle": "consent",
    "releases_acknowledge": "broker",
}
"""And the statements that it waits for, each with its commit."""


class Clocks:
    """What was noted: names of steps, when they began and when they ended."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, float, float]] = []

    def wind(self) -> None:
        """Put clocks around everything."""
        for name, owner in CALLS.items():
            method = name.partition(".")[2]
            setattr(owner, method, self._around(name, getattr(owner, method)))
        names = {getattr(load(f"parley_{service}"), name): f"{service}.{name}" for name, service in STATEMENTS.items()}
        database: Any = Database
        for method in ("fetch", "execute"):
            setattr(database, method, self._around_statements(names, getattr(database, method)))

    def _around(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return await method(*arguments)
            finally:
                self.noted.append((name, began, time.perf_counter()))

        return timed

    def _around_statements(
        self, names: Mapping[str, str], method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        timed = {query: self._around(name, method) for query, name in names.items()}

        async def run(database: Database, query: str, *arguments: Any) -> Any:
            return await timed.get(query, method)(database, query, *arguments)

        return run


if __name__ == "__main__":
    clocks = Clocks()
    clocks.wind()
    asyncio.run(main(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text("".join(json.dumps(one) + "\n" for one in clocks.noted))
