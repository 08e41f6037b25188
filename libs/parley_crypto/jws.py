"""
Signed statements: compact JWS (RFC 7515) with EdDSA (RFC 8037) over canonical JSON (RFC 8785).

Each kind of statement has its own ``typ``, so that none can stand in for another, and one spelling: a header that says anything
else, padding, or bits to spare make it another's. Times are checked against the clock that is passed in, never the machine's.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

import rfc8785

from parley_crypto.signing import SignatureInvalid, Signer, verify

Keys = Mapping[str, bytes]  # key id -> Ed25519 public key

_SKEW_S = 5
_WHOLE = 2**53


class StatementInvalid(ValueError):
    """The statement is malformed, of another kind, signed by nobody we know, or not valid now."""


class StatementNotCurrent(StatementInvalid):
    """The statement is not valid now, or not yet: or a clock is wrong."""


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Spelt:
    """A value's canonical JSON: what many objects have in common is spelt once. It stands as a member of the outermost object."""

    json: str


def spelt(value: Any) -> Spelt:
    """Spell a value. Raises ValueError for what has no canonical JSON."""
    return Spelt(canonical(value).decode())


def canonical(value: Any) -> bytes:
    """Canonical JSON (RFC 8785). Raises ValueError for what has none."""
    if isinstance(value, dict) and Spelt in map(type, value.values()):
        return _joined(value).encode()
    return _spelling(value).encode()


def _joined(members: Mapping[Any, Any]) -> str:
    """An object some of whose members are spelt already. Names in ASCII, which are sorted as the RFC sorts them."""
    if not _are_ascii(members):
        raise ValueError("a member's name is not ASCII")
    return "{" + ",".join([f"{encode_basestring(name)}:{_member(members[name])}" for name in sorted(members)]) + "}"


def _member(value: Any) -> str:
    if type(value) is str:  # as most are; the encoder would call this, too
        return encode_basestring(value)
    return value.json if type(value) is Spelt else _spelling(value)


def _spelling(value: Any) -> str:
    return _encoder.encode(value) if _is_plain(value) else rfc8785.dumps(value).decode()


def _is_plain(value: Any) -> bool:
    """
    Whether the standard library's encoder, in C and some ten times as fast, writes the very bytes of the RFC.

    It does for ASCII names, which it sorts alike, arrays, text, integers below 2^53, booleans and null: all that Parley signs.
    """
    if isinstance(value, dict):
        if not _are_ascii(value):
            return False
        value = value.values()
    elif not isinstance(value, list):
        return isinstance(value, str) or value is None or (isinstance(value, int) and -_WHOLE < value < _WHOLE)
    # Most is text: a call for each, be it of a generator, would take longer than all the rest.
    return all(map(_is_plain, [each for each in value if type(each) is not str]))


def _are_ascii(names: Iterable[Any]) -> bool:
    try:
        return "".join(names).isascii()
    except TypeError:  # a name that isn't text
        return False


def sign_statement(kind: str, claims: Mapping[str, Any], signer: Signer) -> str:
    """Sign claims as a statement of this kind (``card``, ``token``, ``consent``, ...)."""
    signed = f"{_header(kind, signer.key_id)}.{_encoded(canonical(claims))}"
    return f"{signed}.{_encoded(signer.sign(signed.encode()))}"


def unverified_claims(statement: str) -> dict[str, Any]:
    """Read claims without checking anything: only to learn whose key to check with. Raises StatementInvalid."""
    try:
        _, payload, _ = statement.split(".")
        return _object(payload)
    except (ValueError, RecursionError) as error:
        raise StatementInvalid("not a statement") from error


def verify_statement(kind: str, statement: str, keys: Keys) -> dict[str, Any]:
    """Check kind and signature, and return the claims. Raises StatementInvalid."""
    try:
        header, payload, signature = statement.split(".")
        says = _object(header)
        key_id = str(says.get("kid"))
        key = keys.get(key_id)
        if key is None or says != _says(kind, key_id):
            raise StatementInvalid("another kind of statement, or an unknown key")
        verify(key, f"{header}.{payload}".encode("ascii"), _decoded(signature))
        return _object(payload)
    except (SignatureInvalid, ValueError, RecursionError) as error:
        raise StatementInvalid("not a valid statement") from error


def check_current(claims: Mapping[str, Any], now: datetime) -> None:
    """Check ``iat`` and ``exp`` (seconds since the epoch), with 5 s of skew. Raises StatementInvalid, and StatementNotCurrent."""
    issued, expires = claims.get("iat"), claims.get("exp")
    if type(issued) is not int or type(expires) is not int:
        raise StatementInvalid("it has no time in whole seconds")
    if not issued - _SKEW_S <= now.timestamp() < expires:
        raise StatementNotCurrent("it is not valid now")


def _says(kind: str, key_id: str) -> dict[str, str]:
    """What the header of a statement says: one algorithm, one kind, one key, and nothing more to understand."""
    return {"alg": "EdDSA", "kid": key_id, "typ": f"parley-{kind}+jws"}


@lru_cache(256)
def _header(kind: str, key_id: str) -> str:
    return _encoded(canonical(_says(kind, key_id)))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(segment: str) -> bytes:
    """Decode base64url that is spelt as :func:`_encoded` spells it: a statement has one spelling. Raises ValueError."""
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if _encoded(data) != segment:
        raise ValueError("not base64url, or not its one spelling")
    return data


def _object(segment: str) -> dict[str, Any]:
    claims = json.loads(_decoded(segment))
    if not isinstance(claims, dict):
        raise StatementInvalid("not an object")
    return claims
