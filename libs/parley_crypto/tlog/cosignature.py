"""Witness cosignatures, type 0x04 (c2sp.org/tlog-cosignature, ``cosignature/v1``): a time and an Ed25519 signature."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from parley_crypto.tlog import ed25519
from parley_crypto.tlog.checkpoint import parse_checkpoint
from parley_crypto.tlog.encoding import MAX_SIZE
from parley_crypto.tlog.note import KeyType, PrivateKey, VerifierKey

_TIMESTAMP = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness's signer. ``now`` gives POSIX seconds. One private key serves one witness and never a log."""

    private: PrivateKey
    now: Callable[[], int]
    key: VerifierKey = field(init=False, repr=False, compare=False)
    """The key that the line will name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.private.vkey(KeyType.COSIGNATURE))

    def sign(self, text: bytes) -> bytes:
        """Cosign a checkpoint's text: u64 time, then 64 bytes. Raises CheckpointInvalid for any other text."""
        parse_checkpoint(text.decode())
        timestamp = self.now()
        return _TIMESTAMP.pack(timestamp) + ed25519.sign(self.private.seed, _message(timestamp, text))


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """Checks a witness's cosignatures. Their time is authenticated, and judged by nobody here."""

    key: VerifierKey

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Tell whether the bytes are a time and the witness's signature over that time and the text."""
        if len(signature) != _TIMESTAMP.size + ed25519.SIGNATURE_SIZE:
            return False
        (timestamp,) = _TIMESTAMP.unpack_from(signature)
        message = _message(timestamp, text)
        return timestamp <= MAX_SIZE and ed25519.verifies(self.key.public, message, signature[_TIMESTAMP.size :])


def _message(timestamp: int, text: bytes) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n".encode() + text
