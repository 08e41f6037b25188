"""
Finding candidates: the matching index, kept in step with what is committed.

Whoever changes items does it inside :meth:`Finder.changing`. Its end takes the subjects out of the index at once, whatever
happened, and reads them again from the database: what is in doubt isn't matched on. What other processes of vault commit is
heard of within about a second.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from functools import partial

from structlog.typing import FilteringBoundLogger

from parley_crypto.keyring import CiphertextInvalid
from parley_kit.offload import work
from parley_terms.terms import Level
from parley_terms.values import Catalogue
from parley_vault.domain.matching import Fact, Index
from parley_vault.safe import Kept, Safe
from parley_vault.store import Change, Store

_PAGE = 5_000
_RETRY_AFTER = 0.5
_HEAR_EVERY = 0.5
_HEARD_TOGETHER = 500


class DatabaseFellBack(Exception):
    """The database is behind where it was: restored, or failed over to one that lagged. The index is read anew by a new start."""


class Finder:
    """The index, and its upkeep. ``run`` and ``listen`` are to be run for as long as the service is."""

    def __init__(self, store: Store, safe: Safe, catalogue: Catalogue, log: FilteringBoundLogger) -> None:
        self.index = Index(catalogue)
        self._store, self._safe, self._log = store, safe, log
        self._stale: set[str] = set()
        self._woken = asyncio.Event()
        self._reading = asyncio.Lock()
        self._heard, self._named = 0, frozenset[Change]()

    async def rebuild(self) -> None:
        """Read every discoverable item, and what has changed meanwhile: once, before anything is served."""
        self._heard = await self._store.now()
        after, count = ("", ""), 0
        while page := await self._store.discoverable_page(after, _PAGE):
            for subject, found in (await work(len(page), partial(self._facts, page))).items():
                self.index.add(subject, found)
            after, count = (page[-1].place.subject, page[-1].place.attribute), count + len(page)
            self._log.info("index_rebuilding", count=count)
        await self.hear()
        self._log.info("index_rebuilt", count=count)

    @asynccontextmanager
    async def changing(self, subjects: Iterable[str]) -> AsyncIterator[None]:
        """Keep the index in step with what the block commits for these subjects."""
        try:
            yield
        finally:
            for subject in subjects:
                self.index.forget(subject)
                self._stale.add(subject)
            self._woken.set()
        await self.catch_up()

    async def catch_up(self) -> None:
        """Read what has changed, in one statement for all who wait. Raises what the database raises; nothing is lost then."""
        async with self._reading:
            reading, self._stale = self._stale, set()
            try:
                await self._read(reading)
            except BaseException:
                self._stale |= reading
                raise

    async def hear(self) -> None:
        """
        Read again who has changed, through whichever process of vault: in the index they are replaced, never missing.

        Raises what the database raises, nothing being lost then, and DatabaseFellBack.
        """
        heard, named = await self._store.changed(self._heard)
        if heard < self._heard:
            raise DatabaseFellBack
        # While a transaction stays open, all who have changed since are named each time.
        news = sorted({subject for subject, _ in named - self._named})
        for first in range(0, len(news), _HEARD_TOGETHER):
            async with self._reading:
                await self._read(news[first : first + _HEARD_TOGETHER])
        self._heard, self._named = heard, named

    async def run(self) -> None:
        """Catch up with changes whose callers went away or met an error, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.catch_up()
            except Exception as error:  # noqa: BLE001 - whatever it is, the subjects stay out of the index until it is over
                self._log.warning("index_behind", count=len(self._stale), error_type=type(error).__name__)
                self._woken.set()
                await asyncio.sleep(_RETRY_AFTER)

    async def listen(self) -> None:
        """Hear of other processes' changes about twice a second, until cancelled. Raises DatabaseFellBack."""
        is_behind = False
        while True:
            await asyncio.sleep(_HEAR_EVERY)
            try:
                await self.hear()
                is_behind = False
            except DatabaseFellBack:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, what was missed is heard of once it is over
                if not is_behind:
                    self._log.warning("index_behind", error_type=type(error).__name__)
                is_behind = True

    async def _read(self, subjects: Collection[str]) -> None:
        """Read what is discoverable of subjects; whoever changes meanwhile is in doubt again, and left to the next reading."""
        kept = await self._store.discoverable_of(subjects) if subjects else []
        facts = await work(len(kept), partial(self._facts, kept))
        for subject in subjects:
            if subject not in self._stale:
                self.index.forget(subject)
                self.index.add(subject, facts.get(subject, {}))

    def _facts(self, kept: Iterable[Kept]) -> dict[str, dict[str, Fact]]:
        facts: dict[str, dict[str, Fact]] = defaultdict(dict)
        for item in kept:
            try:
                facts[item.place.subject][item.place.attribute] = Fact(self._safe.text(item), Level(item.level))
            except CiphertextInvalid as error:
                self._log.warning("item_refused", error_type=type(error).__name__)
        return facts
