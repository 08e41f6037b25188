"""Introducing customers to marketers: candidates in, pseudonyms and sealed refs out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parley_identity.domain.accounts import Account
from parley_identity.domain.marketers import Marketer
from parley_identity.faults import MarketerNotFound
from parley_identity.keys import Naming, Refs, Seeds
from parley_identity.store import Store
from parley_kit.clock import Clock
from parley_kit.offload import work


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
        subjects = await work(len(candidates), lambda: self._open(to, exchange, candidates))
        introduced = await self._introduce(to, {subject for subject in subjects if subject})
        return [introduced.get(subject) if subject else None for subject in subjects]

    def _open(self, to: Marketer, exchange: str, candidates: Sequence[bytes]) -> list[str | None]:
        return [self.naming.candidate_subject(sealed, to.name, exchange) for sealed in candidates]

    async def _introduce(self, to: Marketer, subjects: set[str]) -> Mapping[str, Refs]:
        found = await self.store.found(list(subjects), to.sector)
        refs = await work(len(found), lambda: self._name(to, found))
        pairs = [(found[subject][0].customer, named.pseudonym) for subject, named in refs.items()]
        await self.store.introduce(pairs, to.marketer, self.clock.now())
        return refs

    def _name(self, to: Marketer, found: Mapping[str, tuple[Account, int]]) -> dict[str, Refs]:
        sectors = {epoch: self.seeds.sector(to.sector, epoch) for epoch in {epoch for _, epoch in found.values()}}
        return {
            subject: self.naming.introduction(account, self.seeds.pseudonym(account, sectors[epoch]), to.name)
            for subject, (account, epoch) in found.items()
        }
