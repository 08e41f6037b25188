"""Registering marketers, changing them, and vouching for them."""

from collections.abc import Callable
from dataclasses import dataclass

from parley_crypto.signing import KeyInvalid, Signer, check_sealing_key, check_signing_key, key_id
from parley_crypto.statements import issue_card
from parley_db.database import Tx
from parley_db.outbox import append
from parley_identity.domain.marketers import KEY_OVERLAP, KeyUse, Marketer, MarketerKey, Profile, sector_of
from parley_identity.events import Publishing
from parley_identity.faults import MarketerNotFound, MarketerSuspended, PublicKeyInvalid
from parley_identity.store import Store
from parley_kit.clock import Clock
from parley_kit.ids import new_id
from parley_terms.terms import Level

_CHECKS: dict[KeyUse, Callable[[bytes], None]] = {
    KeyUse.SEALING: check_sealing_key,
    KeyUse.SIGNING: check_signing_key,
}


@dataclass(frozen=True)
class Marketers:
    """What operators, marketers and the broker do with marketers."""

    store: Store
    publishing: Publishing
    signer: Signer
    clock: Clock

    async def register(self, tx: Tx, profile: Profile, sealing_key: bytes, signing_key: bytes) -> Marketer:
        """Register a marketer. Raises PublicKeyInvalid."""
        keys = (_key(KeyUse.SIGNING, signing_key), _key(KeyUse.SEALING, sealing_key))
        marketer = Marketer(new_id(), profile, sector_of(profile.legal_entity), suspended=False, keys=keys)
        await self.store.register(tx, marketer, self.clock.now())
        await append(tx, [self.publishing.registered(marketer)])
        return marketer

    async def update(self, tx: Tx, marketer: str, level: Level | None, suspended: bool | None) -> Marketer:
        """Change what is given; nothing is published where nothing changes. Raises MarketerNotFound."""
        changed = await self.store.update(tx, marketer, level, suspended)
        found = _present(await self.store.marketer_in(tx, marketer))
        if changed:
            await append(tx, [self.publishing.changed(found)])
        return found

    async def add_key(self, tx: Tx, marketer: str, use: KeyUse, public_key: bytes) -> Marketer:
        """Add a newer key; the older ones stay good for a day. Raises PublicKeyInvalid, also for one it had before."""
        _present(await self.store.marketer_in(tx, marketer))
        if not await self.store.rotate(tx, marketer, _key(use, public_key), self.clock.now() + KEY_OVERLAP):
            raise PublicKeyInvalid
        found = _present(await self.store.marketer_in(tx, marketer))
        await append(tx, [self.publishing.changed(found)])
        return found

    async def find(self, marketer: str) -> Marketer:
        """A marketer. Raises MarketerNotFound."""
        return _present(await self.store.marketer(marketer))

    async def card(self, marketer: str) -> str:
        """Sign a card for an hour. Raises MarketerNotFound, MarketerSuspended."""
        found = await self.find(marketer)
        if found.suspended:
            raise MarketerSuspended
        return issue_card(self.signer, found.card(), self.clock.now())


def _key(use: KeyUse, public_key: bytes) -> MarketerKey:
    try:
        _CHECKS[use](public_key)
    except KeyInvalid:
        raise PublicKeyInvalid from None
    return MarketerKey(key_id(public_key), use, public_key)


def _present(marketer: Marketer | None) -> Marketer:
    if marketer is None:
        raise MarketerNotFound
    return marketer
