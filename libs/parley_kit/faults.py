"""
Faults: facts that stop a request, spoken to two readers.

``reason`` is for programs, stable and listed in ``parley.common.v1.ErrorReason``; the message is for people and says
the next step. Neither, nor any metadata, ever holds a value, a name or an address.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The canonical gRPC status codes that Parley answers with."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is wrong. ``field`` is its proto path (``terms.content.fields[2].attribute``)."""

    field: str
    description: str


class Fault(Exception):
    """
    A fact that stops a request. Subclasses fix the code and the reason; their docstring is the default message.

    ``metadata`` values are pseudonymous at most. ``retry_after`` is in seconds.
    """

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        self.message = message or " ".join((type(self).__doc__ or self.reason).split())
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidRequest(Fault):
    """The request is malformed: see the field violations and correct them."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_REQUEST"


class NotSupportedYet(Fault):
    """The request uses a part of the terms that this version does not enforce yet; leave the named fields out."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_SUPPORTED_YET"


class Unauthenticated(Fault):
    """The credentials are missing, expired or not valid here: sign in again."""

    code, reason = Code.UNAUTHENTICATED, "UNAUTHENTICATED"


class CallerNotAllowed(Fault):
    """This caller may not call this method: see docs/trust-zones.md for who may."""

    code, reason = Code.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"


class RequestIdReused(Fault):
    """This request_id was used before with another request: send a new one."""

    code, reason = Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"


class Unavailable(Fault):
    """A part of Parley can't be reached just now: retry after the given delay."""

    code, reason = Code.UNAVAILABLE, "UNAVAILABLE"


class ClocksApart(Unavailable):
    """The clocks of two parts of Parley are more than ten minutes apart: its operator has to set one."""

    reason = "CLOCKS_APART"


class Conflict(Fault):
    """The resource was changed by someone else meanwhile: read it again and retry."""

    code, reason = Code.ABORTED, "CONFLICT"


class DeadlineTooShort(Fault):
    """Too little time is left to answer within the deadline: allow more."""

    code, reason = Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"


class TooLarge(Fault):
    """The request is larger than allowed here: send less at a time."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_LARGE"


class TooManyCalls(Fault):
    """Too much of yours is under way here already: let some of it end, then retry after the given delay."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS"


class Internal(Fault):
    """Internal error: quote the error id when you ask for help."""

    code, reason = Code.INTERNAL, "INTERNAL"
