"""Who is calling: established once per call by the server, readable by the handler."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

Metadata = Sequence[tuple[str, str | bytes]]
KINDS = frozenset({"customer", "marketer", "importer", "operator", "service", "anyone"})


@dataclass(frozen=True, slots=True)
class Principal:
    """
    An authenticated caller.

    ``kind`` is one of :data:`KINDS`. ``id`` is the callee's own id for a customer, a marketer's id, a service's name
    (``broker``), empty for anyone. ``audit_ref`` is a customer's sealed reference for audit; empty for others.
    """

    kind: str
    id: str
    audit_ref: bytes = b""


Authenticator = Callable[[Metadata, str], Principal]
"""
Reads the ``authorization`` entry of a call's metadata for the service of that full name (``parley.vault.v1...``).

Asked only when there is exactly one such entry. Raises Unauthenticated for a token that is not valid there.
"""

ANYONE = Principal("anyone", "")

_caller: ContextVar[Principal] = ContextVar("parley_caller")


def caller() -> Principal:
    """Whoever made the call that is being handled. Raises LookupError outside a call."""
    return _caller.get()


def remember(principal: Principal) -> None:
    """Set what :func:`caller` answers in this call's own context."""
    _caller.set(principal)
