"""
Signed statements: compact JWS (RFC 7515) with EdDSA (RFC 8037) over canonical JSON (RFC 8785).

Each kind of statement has its own ``typ``, so that none can stand in for another. Times are checked against the clock that is
passed in, never the machine's.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import rfc8785
from jwt.algorithms import Algorithm
from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidKeyError, PyJWTError
from jwt.utils import base64url_decode

from parley_crypto.signing import SignatureInvalid, Signer, verify

Keys = Mapping[str, bytes]  # key id -> Ed25519 public key


class _Ed25519(Algorithm):
    """EdDSA by libsodium, which checks everything else here, too: a key is a :class:`Signer`, or the bytes of a public key."""

    def prepare_key(self, key: Any) -> Any:
        return key

    def sign(self, msg: bytes, key: Any) -> bytes:
        signature: bytes = key.sign(msg)
        return signature

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool:
        try:
            verify(key, msg, sig)
        except SignatureInvalid:
            return False
        return True

    @staticmethod
    def to_jwk(key_obj: Any, as_dict: bool = False) -> Any:  # noqa: ARG004 - the library's signature
        raise InvalidKeyError("keys are published by identity, not by the library")

    @staticmethod
    def from_jwk(jwk: Any) -> Any:  # noqa: ARG004 - as above
        raise InvalidKeyError("keys come from the trust file, not from a statement")


_jws = PyJWS(algorithms=[])
_jws.register_algorithm("EdDSA", _Ed25519())
_SKEW_S = 5
_WHOLE = 2**53


class StatementInvalid(ValueError):
    """The statement is malformed, of another kind, signed by nobody we know, or not valid now."""


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def canonical(value: Any) -> bytes:
    """Canonical JSON (RFC 8785). Raises ValueError for what has none."""
    return _encoder.encode(value).encode() if _is_plain(value) else rfc8785.dumps(value)


def _is_plain(value: Any) -> bool:
    """
    Whether the standard library's encoder, in C and some ten times as fast, writes the very bytes of the RFC.

    It does for ASCII names, which it sorts alike, arrays, text, integers below 2^53, booleans and null: all that Parley signs.
    """
    if isinstance(value, str) or value is None:
        return True
    if isinstance(value, dict):
        return all(isinstance(name, str) and name.isascii() and _is_plain(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, int) and -_WHOLE < value < _WHOLE


def sign_statement(kind: str, claims: Mapping[str, Any], signer: Signer) -> str:
    """Sign claims as a statement of this kind (``card``, ``token``, ``consent``, ...)."""
    headers = {"typ": f"parley-{kind}+jws", "kid": signer.key_id}
    return _jws.encode(canonical(claims), signer, algorithm="EdDSA", headers=headers)  # type: ignore[arg-type] # the algorithm is ours


def unverified_claims(statement: str) -> dict[str, Any]:
    """Read claims without checking anything: only to learn whose key to check with. Raises StatementInvalid."""
    try:
        return _object(_jws.decode_complete(statement, options={"verify_signature": False})["payload"])
    except (PyJWTError, ValueError, RecursionError) as error:
        raise StatementInvalid("not a statement") from error


def verify_statement(kind: str, statement: str, keys: Keys) -> dict[str, Any]:
    """Check kind and signature, and return the claims. Raises StatementInvalid."""
    try:
        header = _object(base64url_decode(statement.partition(".")[0]))
        key = keys.get(str(header.get("kid")))
        if header.get("typ") != f"parley-{kind}+jws" or key is None:
            raise StatementInvalid("another kind of statement, or an unknown key")
        return _object(_jws.decode(statement, key, algorithms=["EdDSA"]))
    except (PyJWTError, ValueError, RecursionError) as error:
        raise StatementInvalid("not a valid statement") from error


def check_current(claims: Mapping[str, Any], now: datetime) -> None:
    """Check ``iat`` and ``exp`` (seconds since the epoch), with 5 s of skew. Raises StatementInvalid."""
    issued, expires = claims.get("iat"), claims.get("exp")
    if type(issued) is not int or type(expires) is not int:
        raise StatementInvalid("it has no time in whole seconds")
    if not issued - _SKEW_S <= now.timestamp() < expires:
        raise StatementInvalid("it is not valid now")


def _object(payload: bytes) -> dict[str, Any]:
    claims = json.loads(payload)
    if not isinstance(claims, dict):
        raise StatementInvalid("not an object")
    return claims
