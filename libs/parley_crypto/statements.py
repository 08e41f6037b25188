"""The statements that services rely on offline: sign-in assertions, access tokens and marketer cards."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from parley_crypto.jws import (
    Keys,
    StatementInvalid,
    check_current,
    sign_statement,
    unverified_claims,
    verify_statement,
)
from parley_crypto.signing import Signer, key_id

ASSERTION_LIFE = timedelta(seconds=60)
_BACKDATED = ASSERTION_LIFE / 3
TOKEN_LIFE = timedelta(minutes=5)
CARD_LIFE = timedelta(hours=1)
ISSUER = "parley.identity"


@dataclass(frozen=True, slots=True)
class Assertion:
    """Who signs in (a resource name), and the id that makes the assertion good for one use."""

    subject: str
    jti: str


@dataclass(frozen=True, slots=True)
class Token:
    """What an access token says: the caller's kind, that service's id for them, and a ref for audit."""

    kind: str
    subject: str
    audit_ref: bytes = b""


@dataclass(frozen=True, slots=True)
class Card:
    """What identity vouches for about a marketer, for an hour."""

    marketer: str
    display_name: str
    legal_entity: str
    level: int
    contact: str
    sealing_key: bytes

    @property
    def sealing_key_id(self) -> str:
        """The id of the key that releases are sealed to."""
        return key_id(self.sealing_key)


def make_assertion(signer: Signer, subject: str, jti: str, now: datetime) -> str:
    """
    Sign a one-use assertion for identity (RFC 7523, ``private_key_jwt``).

    It begins a while ago, so that a clock that is twenty seconds ahead, or behind, signs in all the same.
    """
    claims = {"iss": subject, "sub": subject, "aud": ISSUER, "jti": jti, **_span(now - _BACKDATED, ASSERTION_LIFE)}
    return sign_statement("assertion", claims, signer)


def verify_assertion(statement: str, keys_of: Callable[[str], Keys], now: datetime) -> Assertion:
    """Check an assertion against the keys of whom it names. Raises StatementInvalid."""
    subject = str(unverified_claims(statement).get("sub"))
    claims = verify_statement("assertion", statement, keys_of(subject))
    check_current(claims, now)
    if claims["exp"] - claims["iat"] > ASSERTION_LIFE.total_seconds():
        raise StatementInvalid("an assertion lives for 60 s at most")
    if claims.get("aud") != ISSUER or claims.get("iss") != subject or not isinstance(claims.get("jti"), str):
        raise StatementInvalid("it is not addressed to identity")
    return Assertion(subject, claims["jti"])


def issue_token(signer: Signer, token: Token, audience: str, now: datetime) -> str:
    """Sign an access token for one service (RFC 9068 claims)."""
    claims = {
        "iss": ISSUER,
        "aud": f"parley.{audience}",
        "sub": token.subject,
        "kind": token.kind,
        "aref": base64.b64encode(token.audit_ref).decode(),
        **_span(now, TOKEN_LIFE),
    }
    return sign_statement("token", claims, signer)


def verify_token(statement: str, keys: Keys, audience: str, now: datetime) -> Token:
    """Check an access token for one service. Raises StatementInvalid."""
    return read_token(verify_statement("token", statement, keys), audience, now)


def read_token(claims: Mapping[str, Any], audience: str, now: datetime) -> Token:
    """Check the claims of a token whose signature was checked before. Raises StatementInvalid."""
    check_current(claims, now)
    if claims.get("iss") != ISSUER or claims.get("aud") != f"parley.{audience}":
        raise StatementInvalid("it is for another service")
    try:
        return Token(str(claims["kind"]), str(claims["sub"]), base64.b64decode(claims["aref"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StatementInvalid("a claim is missing, or is none") from error


def issue_card(signer: Signer, card: Card, now: datetime) -> str:
    """Sign a marketer card."""
    claims = {
        "iss": ISSUER,
        "sub": card.marketer,
        "name": card.display_name,
        "entity": card.legal_entity,
        "level": card.level,
        "contact": card.contact,
        "seal": base64.b64encode(card.sealing_key).decode(),
        **_span(now, CARD_LIFE),
    }
    return sign_statement("card", claims, signer)


def verify_card(statement: str, keys: Keys, now: datetime) -> Card:
    """Check a marketer card offline: its signature once, its times each time it comes. Raises StatementInvalid."""
    claims, card = _signed_card(statement, tuple(keys.items()))
    check_current(claims, now)
    return card


@lru_cache(1024)
def _signed_card(statement: str, keys: tuple[tuple[str, bytes], ...]) -> tuple[Mapping[str, Any], Card]:
    """A card that one of the keys signed; only success is remembered."""
    claims = verify_statement("card", statement, dict(keys))
    return claims, _card(claims)


def _card(claims: Mapping[str, Any]) -> Card:
    try:
        return Card(
            marketer=claims["sub"],
            display_name=claims["name"],
            legal_entity=claims["entity"],
            level=claims["level"],
            contact=claims["contact"],
            sealing_key=base64.b64decode(claims["seal"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StatementInvalid("a claim is missing, or is none") from error


def _span(now: datetime, life: timedelta) -> dict[str, int]:
    issued = int(now.timestamp())
    return {"iat": issued, "exp": issued + int(life.total_seconds())}
