"""
What audit keeps of everybody, opened with its master key, by code of its own.

Keys and ciphertexts are laid out as ``docs/adr`` and the reference say: of Parley this knows the layouts, and shares no code.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt

_SALT = 32


@dataclass(frozen=True)
class Opening:
    """A row of somebody's history: the commitment it stands for, and what audit can say of it."""

    commitment: bytes
    salt: bytes
    detail: bytes

    @property
    def is_true(self) -> bool:
        """Whether it opens the commitment."""
        return self.commitment == hashlib.sha256(self.salt + self.detail).digest()


def open_history(master: Path, keys: Sequence[Any], history: Sequence[Any]) -> Iterator[Opening]:
    """
    Open all that is in ``history`` (subject, commitment, sealed) with the subjects' ``keys`` (subject, wrapped).

    Raises nacl.exceptions.CryptoError for what was changed or moved.
    """
    masters = _read(master)
    deks = {subject: _unwrap(masters, wrapped, subject) for subject, wrapped in keys}
    for subject, commitment, sealed in history:
        plain = _decrypt(deks[subject], sealed, "audit/history/v1", subject, commitment)
        yield Opening(commitment, plain[:_SALT], plain[_SALT:])


def _read(path: Path) -> Mapping[int, bytes]:
    lines = (line.split() for line in path.read_text("ascii").splitlines())
    return {int(version): base64.b64decode(key) for version, key in lines}


def _unwrap(masters: Mapping[int, bytes], wrapped: bytes, subject: str) -> bytes:
    """Version, 24 bytes of nonce, ciphertext."""
    header = wrapped[:5]
    key = masters[int.from_bytes(header[1:], "big")]
    return decrypt(wrapped[29:], _joined(header, "audit/subject-key/v1", subject), wrapped[5:29], key)


def _decrypt(dek: bytes, sealed: bytes, *place: bytes | str) -> bytes:
    """Key id, 24 bytes of nonce, 32 that commit to the key, ciphertext of what is padded."""
    header, nonce = sealed[:5], sealed[5:29]
    block = hashlib.blake2b(nonce, key=dek, person=b"parley/value/v1").digest()
    padded = decrypt(sealed[61:], _joined(header, *place), nonce, block[:32])
    return padded[: padded.rindex(b"\x80")]


def _joined(*pieces: bytes | str) -> bytes:
    raw = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    return len(raw).to_bytes(8, "little") + b"".join(len(piece).to_bytes(8, "little") + piece for piece in raw)
