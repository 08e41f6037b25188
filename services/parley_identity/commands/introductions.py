"""Introducing customers to marketers: candidates in, pseudonyms and sealed refs out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parley_identity.domain.accounts import Account
from parley_identity.domain.marketers import Marketer
from parley_identity.faults import MarketerNotFound
from parley_identity.keys import Naming, Refs, Seeds
from parley_identity.store import Store
from parley_kit.clock import Clock
from parley_kit.offload import each


@dataclass(frozen=True)
class Introductions:
    """What the broker asks for."""

    store: Store
    seeds: Seeds
    naming: Naming
    clock: Clock

    async def introduce(self, marketer: str, exchange: str, candidates: Sequence[bytes]) -> list[Refs | None]:
        """
        Introduce candidates, in the order asked: None for who can't be, and for everyone if the marketer is suspended.

        The introductions are kept before this answers. Raises MarketerNotFound.
        """
        to = await self.store.marketer(marketer)
        if to is None:
            raise MarketerNotFound
        if to.suspended:
            return [None] * len(candidates)
        subjects = await each(lambda sealed: self.naming.candidate_subject(sealed, to.name, exchange), candidates)
        introduced = await self._introduce(to, {subject for subject in subjects if subject})
        return [introduced.get(subject) if subject else None for subject in subjects]

    async def _introduce(self, to: Marketer, subjects: set[str]) -> Mapping[str, Refs]:
        found = await self.store.found(list(subjects), to.sector)
        sectors = {epoch: self.seeds.sector(to.sector, epoch) for epoch in {epoch for _, epoch in found.values()}}

        def named(account: Account, epoch: int) -> Refs:
            return self.naming.introduction(account, self.seeds.pseudonym(account, sectors[epoch]), to.name)

        refs = dict(zip(found, await each(lambda one: named(*one), found.values()), strict=True))
        pairs = [(found[subject][0].customer, one.pseudonym) for subject, one in refs.items()]
        await self.store.introduce(pairs, to.marketer, self.clock.now())
        return refs
