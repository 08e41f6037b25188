"""
Identifiers.

Random ids name resources and say nothing about when they were made. Only event and row ids are ordered in time
(UUIDv7, RFC 9562 section 5.7).
"""

import base64
import os
import re
import secrets
import time
from collections.abc import Callable
from uuid import UUID

Entropy = Callable[[int], bytes]

_ID = re.compile(r"[a-z2-7]{26}")


def new_id(entropy: Entropy = secrets.token_bytes) -> str:
    """Make a random 128-bit id: 26 characters of lowercase base32."""
    return encode_id(entropy(16))


def encode_id(raw: bytes) -> str:
    """Write 16 bytes as the 26 characters ids have."""
    return base64.b32encode(raw).decode().rstrip("=").lower()


def decode_id(text: str) -> bytes:
    """Read an id back into its 16 bytes. Raises ValueError for anything :func:`new_id` can't have made."""
    if not _ID.fullmatch(text):
        raise ValueError("not an id")
    raw = base64.b32decode(text.upper() + "======")
    if encode_id(raw) != text:
        raise ValueError("not an id")
    return raw


def uuid7(entropy: Entropy = os.urandom, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> UUID:
    """Make a UUIDv7: ordered by millisecond, random within it."""
    value = (now_ms() & (2**48 - 1)) << 80 | int.from_bytes(entropy(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
