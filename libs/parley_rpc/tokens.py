"""Access tokens at a server's door: who a bearer is, to the service they call."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from parley_crypto.jws import StatementInvalid, verify_statement
from parley_crypto.statements import read_token
from parley_crypto.trust import Trust
from parley_kit.clock import Clock
from parley_kit.faults import Unauthenticated
from parley_rpc.principal import Authenticator, Metadata, Principal

_SCHEME = "Bearer "
_BEARERS = frozenset({"customer", "marketer", "importer", "operator"})
"""Whoever may come with a token. Services never do: who they are is a matter of the channel."""


def bearer(trust: Trust, clock: Clock) -> Authenticator:
    """Read ``authorization: Bearer`` tokens that identity issued for the service that is called."""

    @lru_cache(maxsize=4096)
    def signed(statement: str) -> Mapping[str, Any]:
        """A bearer calls many times within a token's life: only its times are checked anew, its signature once."""
        return verify_statement("token", statement, trust.keys("identity"))

    def authenticate(metadata: Metadata, service: str) -> Principal:
        value = next(value for key, value in metadata if key == "authorization")
        if not isinstance(value, str) or not value.startswith(_SCHEME):
            raise Unauthenticated
        audience = service.split(".")[1]
        try:
            token = read_token(signed(value.removeprefix(_SCHEME)), audience, clock.now())
        except (StatementInvalid, KeyError, ValueError) as error:
            raise Unauthenticated from error
        if token.kind not in _BEARERS:
            raise Unauthenticated
        return Principal(token.kind, token.subject, token.audit_ref)

    return authenticate
