"""Values that nobody else would write, and the search for them in every form that software gives a text."""

import base64
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from urllib.parse import quote

from tests.support.dumps import Copied, Piece, dump_databases, dump_valkey, logs, metrics, pieces_of

LEAST = 9
"""Bytes a canary has: shorter ones would be found in random bytes, too."""

_planted: set[str] = set()
_said: list[Piece] = []


def canary(value: str) -> str:
    """Register a customer's value that must be nowhere in clear; answers it."""
    assert LEAST <= len(value.encode())
    _planted.add(value)
    return value


def word() -> str:
    """A text that nobody else would write; not all ASCII, so that escaped forms differ."""
    return canary(f"Zürp{secrets.token_hex(6)}öx")


async def none_in_clear(world: Copied, more: Iterable[str] = ()) -> None:
    """No canary so far, nor any of ``more``, is anywhere in clear."""
    values = {*_planted, *more}
    found = hits(await everything(world), values) if values else []
    assert not found, found


def planted() -> frozenset[str]:
    """All canaries so far."""
    return frozenset(_planted)


def said(text: str) -> None:
    """Keep what a caller was told by an error, for the search."""
    _said.append(Piece("error text", text.encode()))


@cache
def forms(value: str) -> tuple[bytes, ...]:
    """A value as it is, and in base64 (three alignments, two alphabets), hex, URL-encoded, JSON-escaped, UTF-16."""
    raw = value.encode()
    escaped = json.dumps(value)[1:-1]
    percent = "".join(f"%{byte:02X}" for byte in raw)
    plain = {
        raw,
        *_base64(raw),
        raw.hex().encode(),
        raw.hex().upper().encode(),
        quote(value, safe="").encode(),
        quote(value, safe="").lower().encode(),
        percent.encode(),
        escaped.encode(),
        json.dumps(escaped)[1:-1].encode(),
        value.encode("utf-16-le"),
        value.encode("utf-16-be"),
        raw[::-1],
    }
    return tuple(sorted(plain))


def _base64(raw: bytes) -> Iterator[bytes]:
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            padded = b"\0" * before + raw
            text = encode(padded).rstrip(b"=")
            first = (before * 8 + 5) // 6
            yield text[first : len(padded) * 8 // 6]


async def everything(world: Copied) -> list[Piece]:
    """All places a value could leak to."""
    databases, valkey = await dump_databases(world), await dump_valkey(world)
    return [*pieces_of(databases), *valkey, *logs(world), *metrics(world), *_said]


def hits(pieces: Iterable[Piece], values: Iterable[str]) -> list[str]:
    """The places where any form of any value is found."""
    needles = [form for value in values for form in forms(value)]
    return sorted(_places(_joined(pieces), needles))


def _places(haystacks: Iterable[tuple[str, bytes]], needles: Sequence[bytes]) -> set[str]:
    return {where for where, data in haystacks if any(needle in data for needle in needles)}


def _joined(pieces: Iterable[Piece]) -> list[tuple[str, bytes]]:
    """One long text a place, since searching is paid by the piece."""
    places: dict[str, list[bytes]] = {}
    for piece in pieces:
        places.setdefault(piece.where, []).append(piece.data)
    return [(where, b"\n".join(parts)) for where, parts in places.items()]
