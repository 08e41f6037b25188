"""Marketers, the keys they rotate, and the sector that their pseudonyms are of."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from parley_crypto.jws import Keys
from parley_crypto.statements import Card
from parley_terms.terms import Level

KEY_OVERLAP = timedelta(days=1)
"""How long a key stays good after a newer one of its use has come."""


class KeyUse(IntEnum):
    """What a marketer's key is for."""

    SEALING = 1
    SIGNING = 2


@dataclass(frozen=True, slots=True)
class MarketerKey:
    """One public key, 32 bytes. ``expire_time`` is None for the newest of its use."""

    key_id: str
    use: KeyUse
    public_key: bytes
    expire_time: datetime | None = None

    def accepted(self, now: datetime) -> bool:
        """Whether the key is still good."""
        return self.expire_time is None or now < self.expire_time


@dataclass(frozen=True, slots=True)
class Profile:
    """What is said of a marketer when it is registered."""

    display_name: str
    legal_entity: str
    level: Level
    contact: str


@dataclass(frozen=True, slots=True)
class Marketer:
    """A marketer. ``marketer`` is its id, ``sector`` what its pseudonyms are derived for, ``keys`` are newest first."""

    marketer: str
    profile: Profile
    sector: str
    suspended: bool
    keys: tuple[MarketerKey, ...]

    @property
    def name(self) -> str:
        """The resource name."""
        return f"marketers/{self.marketer}"

    def accepted_keys(self, now: datetime) -> tuple[MarketerKey, ...]:
        """The keys that are still good, newest first."""
        return tuple(key for key in self.keys if key.accepted(now))

    def signing_keys(self, now: datetime) -> Keys:
        """The keys that its assertions are checked with, by id."""
        return {key.key_id: key.public_key for key in self.accepted_keys(now) if key.use is KeyUse.SIGNING}

    def card(self) -> Card:
        """What identity vouches for."""
        sealing = next(key.public_key for key in self.keys if key.use is KeyUse.SEALING)
        about = self.profile
        return Card(self.name, about.display_name, about.legal_entity, int(about.level), about.contact, sealing)


def sector_of(legal_entity: str) -> str:
    """
    The sector of a legal entity: one, however its name is spaced, capitalised or encoded (Unicode NFKC).

    It is kept with the marketer, so that a newer Unicode changes nobody's pseudonym.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", legal_entity).casefold())
    return " ".join(folded.split())
