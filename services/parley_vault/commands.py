"""What customers and importers do to items: each act locks its subjects first, and is all or none."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from parley_bus.envelopes import Notary
from parley_db.database import Tx
from parley_db.outbox import append
from parley_kit.clock import Clock
from parley_kit.faults import InvalidRequest, Violation
from parley_kit.offload import work
from parley_terms.terms import Level
from parley_vault.domain.items import Item, Value
from parley_vault.events import Customer, items_changed
from parley_vault.faults import ItemNotFound
from parley_vault.safe import Kept, Place, Safe
from parley_vault.store import Pair, Store

Row = tuple[Place, bytes, int]


@dataclass(frozen=True)
class Acts:
    """A customer's acts, each within the transaction it is given, and what they may read."""

    store: Store
    safe: Safe
    notary: Notary
    clock: Clock

    async def put(self, tx: Tx, who: Customer, values: Sequence[Value]) -> list[Place]:
        """Put a new version of each item; answers where they are, in order."""
        deks = {who.subject: await self._own(tx, who, puts=True)}
        latest = await self.store.latest(_pairs(values), tx)
        rows = [_row(self.safe, deks, latest, value) for value in values]
        await self.store.insert(tx, rows, self.clock.now())
        places = [place for place, _, _ in rows]
        await self._publish(tx, who, "put", places)
        return places

    async def delete(self, tx: Tx, who: Customer, attribute: str) -> None:
        """Delete an item with its history; nothing where there is none."""
        await self._own(tx, who)
        if version := await self.store.delete(tx, who.subject, attribute):
            await self._publish(tx, who, "deleted", [Place(who.subject, attribute, version)])

    async def set_discoverable(self, tx: Tx, who: Customer, attribute: str, level: Level | None) -> Item:
        """Let an item be matched on from a level up, or by nobody. Raises ItemNotFound."""
        await self._own(tx, who)
        kept = await self._kept(who, attribute, tx)
        item = self.safe.item(kept)
        if item.level is level:
            return item
        await self._switch(tx, who, attribute, level)
        await self._publish(tx, who, "discoverable", [kept.place], to=level.name.lower() if level else "nobody")
        return replace(item, level=level)

    async def get(self, who: Customer, attribute: str) -> Item:
        """An item in its newest version. Raises ItemNotFound."""
        await self._look(who)
        return self.safe.item(await self._kept(who, attribute))

    async def page(self, who: Customer, after: str, size: int) -> list[Item]:
        """Up to so many items behind an attribute, by attribute."""
        await self._look(who)
        return await self._items(await self.store.page(who.subject, after, size))

    async def versions(self, who: Customer, attribute: str) -> list[Item]:
        """An item's versions, newest first. Raises ItemNotFound."""
        await self._look(who)
        kept = await self.store.versions(who.subject, attribute)
        if not kept:
            raise ItemNotFound
        return await self._items(kept)

    async def _look(self, who: Customer) -> None:
        await self.store.look(who.subject, self.safe.make_dek(who.subject), self.clock.now())

    async def _own(self, tx: Tx, who: Customer, *, puts: bool = False) -> bytes:
        return await self.store.own(tx, who.subject, self.safe.make_dek(who.subject), self.clock.now(), puts=puts)

    async def _items(self, kept: Sequence[Kept]) -> list[Item]:
        return await work(len(kept), lambda: [self.safe.item(one) for one in kept])

    async def _kept(self, who: Customer, attribute: str, tx: Tx | None = None) -> Kept:
        found = await self.store.latest([(who.subject, attribute)], tx)
        if not found:
            raise ItemNotFound
        return found[who.subject, attribute]

    async def _switch(self, tx: Tx, who: Customer, attribute: str, level: Level | None) -> None:
        if level:
            await self.store.show(tx, who.subject, attribute, level)
        else:
            await self.store.hide(tx, [(who.subject, attribute)])

    async def _publish(self, tx: Tx, who: Customer, action: str, places: Iterable[Place], **more: str) -> None:
        items = [{"attribute": place.attribute, "version": place.version, **more} for place in places]
        await append(tx, [items_changed(self.notary, who, action, items)])


@dataclass(frozen=True)
class Imports:
    """An importer's one act. It is no event: nobody's history says what was there before they came."""

    store: Store
    safe: Safe
    clock: Clock

    async def put(self, tx: Tx, subjects: Sequence[str], values: Sequence[Value]) -> int:
        """
        Put what differs, in value or provenance, from what is there; answers how many versions are new.

        ``subjects`` are those of the request's entries, in order. Raises InvalidRequest where one's owner has acted: an old
        reference must not reach into a bank that somebody keeps. So no new version is discoverable either: only an
        owner lets anybody match on items.
        """
        now = self.clock.now()
        made = await work(len(subjects), lambda: {one: self.safe.make_dek(one) for one in sorted(set(subjects))})
        deks = await self.store.meet(tx, made, now)
        _refuse_owned(subjects, deks)
        latest = await self.store.latest(_pairs(values), tx)
        rows = await work(len(values), partial(self._rows, deks, latest, values))
        await self.store.insert(tx, rows, now)
        return len(rows)

    def _rows(self, deks: Mapping[str, bytes], latest: Mapping[Pair, Kept], values: Sequence[Value]) -> list[Row]:
        return [_row(self.safe, deks, latest, value) for value in self._news(latest, values)]

    def _news(self, latest: Mapping[Pair, Kept], values: Iterable[Value]) -> Iterator[Value]:
        for value in values:
            known = latest.get((value.subject, value.attribute))
            if known is None or (self.safe.text(known), known.provenance) != (value.text, value.provenance):
                yield value


def _refuse_owned(subjects: Sequence[str], free: Container[str]) -> None:
    owned = [
        Violation(f"entries[{index}].vault_ref", "its owner keeps this bank now")
        for index, subject in enumerate(subjects)
        if subject not in free
    ]
    if owned:
        raise InvalidRequest(violations=owned)


def _pairs(values: Iterable[Value]) -> list[Pair]:
    return [(value.subject, value.attribute) for value in values]


def _row(safe: Safe, deks: Mapping[str, bytes], latest: Mapping[Pair, Kept], value: Value) -> Row:
    known = latest.get((value.subject, value.attribute))
    place = Place(value.subject, value.attribute, known.place.version + 1 if known else 1)
    return place, safe.seal(deks[value.subject], place, value.text), value.provenance
