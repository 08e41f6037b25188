"""Trading one-use assertions for access tokens. Whatever is wrong with one, the answer is the same."""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from parley_crypto.jws import Keys, StatementInvalid, unverified_claims
from parley_crypto.pae import pae
from parley_crypto.signing import Signer, key_id
from parley_crypto.statements import ASSERTION_LIFE, TOKEN_LIFE, Assertion, Token, issue_token, verify_assertion
from parley_identity.domain.staff import Staff, kind_of
from parley_identity.faults import MarketerSuspended
from parley_identity.keys import Naming
from parley_identity.store import Store
from parley_kit.clock import Clock
from parley_kit.faults import Unauthenticated

_RESOURCE = re.compile(r"(?P<kind>customers|marketers)/(?P<id>[a-z2-7]{26})")

# What a hostile statement can raise besides StatementInvalid: JSON nested past the parser's depth, times past a float.
_NOT_AN_ASSERTION = (StatementInvalid, RecursionError, OverflowError)

_REMEMBER = ASSERTION_LIFE + 2 * timedelta(minutes=10)
"""Longer than a used assertion could stay valid at any process, whose clocks may be ten minutes off, one way and the other."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Somebody who can sign in: the keys they may sign with, and the tokens they get, by service."""

    keys: Keys
    tokens: dict[str, Token]
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed access token for one service."""

    service: str
    token: str
    expire_time: datetime


@dataclass(frozen=True)
class SignIn:
    """Signs in customers, marketers, operators and importers. ``jti_key`` keys the hashes of used assertions."""

    store: Store
    staff: Staff
    naming: Naming
    signer: Signer
    clock: Clock
    jti_key: bytes = field(repr=False)

    async def sign_in(self, statement: str) -> list[Issued]:
        """Check an assertion, use it up, and issue tokens. Raises Unauthenticated, and MarketerSuspended to who proved a key."""
        try:
            subject = str(unverified_claims(statement).get("sub"))
            credential = await self._credential(subject)
            now = self.clock.now()
            assertion = verify_assertion(statement, lambda name: credential.keys if name == subject else {}, now)
        except _NOT_AN_ASSERTION:
            raise Unauthenticated from None
        if not await self.store.use_assertion(self._hash(assertion), now + _REMEMBER):
            raise Unauthenticated
        if credential.suspended:
            raise MarketerSuspended
        return [self._issue(service, token, now) for service, token in credential.tokens.items()]

    def _issue(self, service: str, token: Token, now: datetime) -> Issued:
        expire_time = now.replace(microsecond=0) + TOKEN_LIFE  # the token counts whole seconds
        return Issued(service, issue_token(self.signer, token, service, now), expire_time)

    def _hash(self, assertion: Assertion) -> bytes:
        jti = assertion.jti.encode("utf-8", "surrogatepass")  # JSON may hold what UTF-8 may not
        message = pae(assertion.subject, jti)
        return hashlib.blake2b(message, digest_size=32, key=self.jti_key, person=b"assertion/v1").digest()

    async def _credential(self, subject: str) -> Credential:
        match = _RESOURCE.fullmatch(subject)
        if match is None:
            return self._member(subject)
        find = self._customer if match["kind"] == "customers" else self._marketer
        return await find(match["id"])

    async def _customer(self, customer: str) -> Credential:
        account = await self.store.account(customer)
        if account is None or account.public_key is None:
            raise StatementInvalid("nobody can sign in so")
        return Credential(
            {key_id(account.public_key): account.public_key},
            {
                "vault": Token("customer", account.vault_subject, self.naming.for_audit(account)),
                "consent": Token("customer", account.consent_subject, self.naming.for_audit(account)),
                "audit": Token("customer", account.audit_subject),
            },
        )

    async def _marketer(self, marketer: str) -> Credential:
        found = await self.store.marketer(marketer)
        if found is None:
            raise StatementInvalid("nobody can sign in so")
        token = Token("marketer", found.name)
        return Credential(found.signing_keys(self.clock.now()), {"broker": token, "identity": token}, found.suspended)

    def _member(self, subject: str) -> Credential:
        keys = self.staff.keys(subject)
        if not keys:
            raise StatementInvalid("nobody can sign in so")
        kind = kind_of(subject)
        services = ("identity", "vault") if kind == "importer" else ("identity",)
        return Credential(keys, {service: Token(kind, subject) for service in services})
