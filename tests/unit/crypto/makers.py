"""Keys that tests share, and a ciphertext that opens under two keys: proof of what XChaCha20-Poly1305 does not promise."""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from parley_crypto.signing import Sealer, Signer

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIGNER, STRANGER = Signer(bytes(range(32))), Signer(bytes(range(1, 33)))
SEALER, OTHER_SEALER = Sealer(bytes(range(32))), Sealer(bytes(range(1, 33)))
KEYS = {SIGNER.key_id: SIGNER.public_key}

_P = 2**130 - 5
_CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
_FREE = 2**128  # what Poly1305 adds to every whole block


def flips(data: bytes) -> Iterator[bytes]:
    """The data with one bit of each byte flipped."""
    for place in range(len(data)):
        yield data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


@dataclass(frozen=True)
class PolyKey:
    """A one-time Poly1305 key."""

    r: int
    s: int

    @classmethod
    def of(cls, key: bytes, nonce: bytes) -> "PolyKey":
        """The key that XChaCha20-Poly1305 takes from its keystream (draft-irtf-cfrg-xchacha-03, section 2.3)."""
        subkey = struct.pack("<8I", *[_rounds(key, nonce[:16])[place] for place in (0, 1, 2, 3, 12, 13, 14, 15)])
        tail = bytes(8) + nonce[16:]
        mixed = [(a + b) % 2**32 for a, b in zip(_rounds(subkey, tail), _state(subkey, tail), strict=True)]
        block = struct.pack("<16I", *mixed)
        return cls(int.from_bytes(block[:16], "little") & _CLAMP, int.from_bytes(block[16:32], "little"))

    def hash(self, blocks: list[int]) -> int:
        """Evaluate the polynomial; a free block counts as 0."""
        total = 0
        for block in blocks:
            total = (total + block) * self.r % _P
        return total

    def tag(self, blocks: list[int]) -> int:
        return (self.hash(blocks) + self.s) % 2**128


def two_key_ciphertext(keys: tuple[bytes, bytes], nonce: bytes, aad: bytes) -> bytes | None:
    """
    A ciphertext with its tag, 48 bytes, that opens under both keys; None where this nonce has none.

    Its second half is 16 bytes of padding under the first key; its first half is what solves for equal tags.
    """
    stream = crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(32), b"", nonce, keys[0])
    second = bytes(a ^ b for a, b in zip(stream[16:32], b"\x80" + bytes(15), strict=True))
    before = _blocks(aad)
    blocks = [*before, 0, *_blocks(second), *_blocks(struct.pack("<QQ", len(aad), 32))]
    one, two = (PolyKey.of(key, nonce) for key in keys)
    slope = pow(pow(one.r, 3, _P) - pow(two.r, 3, _P), -1, _P)  # the free block is the third from the end
    for carry in range(-4, 5):
        free = (two.s - one.s + carry * 2**128 - one.hash(blocks) + two.hash(blocks)) * slope % _P
        solved = [*before, free, *blocks[len(before) + 1 :]]
        if _FREE <= free < 2 * _FREE and one.tag(solved) == two.tag(solved):
            return (free - _FREE).to_bytes(16, "little") + second + one.tag(solved).to_bytes(16, "little")
    return None


def nonces() -> Iterator[bytes]:
    """Nonces to try, always the same."""
    return (number.to_bytes(24, "big") for number in itertools.count())


def _blocks(data: bytes) -> list[int]:
    padded = data + bytes(-len(data) % 16)
    return [_FREE + int.from_bytes(padded[at : at + 16], "little") for at in range(0, len(padded), 16)]


def _state(key: bytes, tail: bytes) -> list[int]:
    return list(struct.unpack("<16I", b"expand 32-byte k" + key + tail))


def _rounds(key: bytes, tail: bytes) -> list[int]:
    """ChaCha20's twenty rounds (RFC 8439, section 2.3) without the final addition."""
    state = _state(key, tail)
    for _ in range(10):
        for column in range(4):
            _quarter(state, column, column + 4, column + 8, column + 12)
        for column in range(4):
            _quarter(state, column, (column + 1) % 4 + 4, (column + 2) % 4 + 8, (column + 3) % 4 + 12)
    return state


def _quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for into, other, turned, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[into] = (state[into] + state[other]) % 2**32
        mixed = state[turned] ^ state[into]
        state[turned] = (mixed << by | mixed >> 32 - by) % 2**32
