"""The two text encodings every C2SP format shares: canonical base64 and plain decimals."""

import base64
import binascii
import re

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
MAX_SIZE = 2**63 - 1  # sizes, indices and timestamps stay below it (tlog-cosignature), so that signed 64 bits hold them


def to_base64(raw: bytes) -> str:
    """Write bytes in standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(raw).decode()


def from_base64(text: str) -> bytes:
    """Read base64 in its one canonical spelling: stray characters or non-zero spare bits raise ValueError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if to_base64(raw) != text:
        raise ValueError("base64 is not canonical")
    return raw


def from_base64_sized(text: str, size: int) -> bytes:
    """Read canonical base64 of exactly ``size`` bytes. Raises ValueError."""
    raw = from_base64(text)
    if len(raw) != size:
        raise ValueError("base64 of another length")
    return raw


def from_decimal(text: str) -> int:
    """Read an ASCII decimal without leading zeroes, at most ``MAX_SIZE``. Raises ValueError."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError("not a plain decimal")
    if (number := int(text)) > MAX_SIZE:
        raise ValueError("number too large")
    return number
