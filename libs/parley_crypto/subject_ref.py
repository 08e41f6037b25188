"""
Subject refs: how a customer is named between services without being named to whoever carries the name.

A ref is sealed under a key that identity shares with exactly one service. Every ref of one context has the same length and
a fresh nonce, so that two refs of one customer look like two of anybody.
"""

from dataclasses import dataclass
from functools import lru_cache

from parley_crypto.keyring import CiphertextInvalid, KeyRing
from parley_crypto.pae import pae, unpae

_LENGTH = 224


class RefInvalid(ValueError):
    """The reference was not sealed to this reader, or not for this use."""


@dataclass(frozen=True, slots=True)
class SubjectRef:
    """One service's id for a customer and, where there is one, who they are to which marketer."""

    subject: str
    host: str = ""
    pseudonym: str = ""
    marketer: str = ""


@dataclass(frozen=True, slots=True)
class CandidateRef:
    """A customer found by vault, for one exchange of one marketer alone."""

    subject: str
    exchange: str
    marketer: str


def seal_ref(ring: KeyRing, reader: str, ref: SubjectRef) -> bytes:
    """Seal a ref for ``reader``, a service's name. Raises ValueError where a part is too long."""
    return _seal(ring, ("parley/ref/v1", reader), ref.subject, ref.host, ref.pseudonym, ref.marketer)


@lru_cache(4096)
def open_ref(ring: KeyRing, reader: str, sealed: bytes) -> SubjectRef:
    """Open a ref as ``reader``. Raises RefInvalid. The latest are remembered: one comes with every step of an exchange."""
    return SubjectRef(*_open(ring, ("parley/ref/v1", reader), sealed, 4))


def seal_candidate(ring: KeyRing, ref: CandidateRef) -> bytes:
    """Seal a candidate from vault to identity."""
    return _seal(ring, ("parley/candidate/v1", "identity"), ref.subject, ref.exchange, ref.marketer)


def open_candidate(ring: KeyRing, sealed: bytes) -> CandidateRef:
    """Open a candidate as identity. Raises RefInvalid."""
    return CandidateRef(*_open(ring, ("parley/candidate/v1", "identity"), sealed, 3))


def _seal(ring: KeyRing, context: tuple[str, str], *parts: str) -> bytes:
    plain = pae(*parts)
    if len(plain) > _LENGTH - 2:
        raise ValueError("a part of the reference is too long")
    return ring.wrap(len(plain).to_bytes(2, "big") + plain.ljust(_LENGTH - 2, b"\0"), *context)


def _open(ring: KeyRing, context: tuple[str, str], sealed: bytes, count: int) -> list[str]:
    try:
        plain = ring.unwrap(sealed, *context)
        parts = [part.decode() for part in unpae(plain[2 : 2 + int.from_bytes(plain[:2], "big")])]
    except (CiphertextInvalid, ValueError) as error:
        raise RefInvalid("not sealed to this reader") from error
    if len(parts) != count:
        raise RefInvalid("not a reference of this kind")
    return parts
