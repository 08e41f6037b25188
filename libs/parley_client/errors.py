"""
Everything the SDK raises, as classes to catch.

A refused call raises the class of its reason: one for each of ``parley.common.v1.ErrorReason``, all of them a
:class:`ParleyError`. What can't be trusted raises :class:`DeliveryInvalid` or :class:`ReceiptInvalid`: trying again doesn't
help, and the bytes are evidence.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from typing import Self

import grpc

from parley_kit.faults import Code, Fault, Violation
from parley_rpc.status import ForeignFault, fault_from


class ParleyError(Exception):
    """
    A call that failed. A reason that no class here stands for (from a newer Parley) raises this very class.

    ``reason`` is for programs and stable; ``message`` is for people and says the next step; ``violations`` name the
    fields of the request that are wrong; ``retry_after`` is in seconds, where the server named a delay.
    """

    is_foreign = False
    """Not Parley said so: gRPC, or whatever stands between."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        super().__init__(reason, message)

    def of_request(self, request_id: str) -> Self:
        """The same, of one caller's request: one failure, as of signing in, is many callers'."""
        told = copy(self)
        told.metadata = {**self.metadata, "request_id": request_id}
        return told

    def __str__(self) -> str:
        wrong = "; ".join(f"{each.field}: {each.description}" for each in self.violations)
        return f"{self.reason}: {self.message}" + (f" ({wrong})" if wrong else "")


class InvalidRequest(ParleyError):
    """A field is missing, malformed or out of range: ``violations`` name it."""


class NotSupportedYet(ParleyError):
    """The terms use a part that this version of Parley does not enforce: leave it out."""


class Unauthenticated(ParleyError):
    """The credentials are not accepted: check the marketer, its signing key, and this machine's clock."""


class CallerNotAllowed(ParleyError):
    """This caller may not call this method."""


class RequestIdReused(ParleyError):
    """The request id was used before with another request."""


class Unavailable(ParleyError):
    """A part of Parley can't be reached; it was tried again as often as the deadline allowed."""


class ClocksApart(ParleyError):
    """The clocks of two parts of Parley are more than ten minutes apart: its operator has to set one."""


class Conflict(ParleyError):
    """The resource changed meanwhile: read it again."""


class DeadlineTooShort(ParleyError):
    """Too little time was left for the server to answer: allow more."""


class TooLarge(ParleyError):
    """The request is larger than allowed: send less at a time."""


class TooManyCalls(ParleyError):
    """Too much of this caller's is under way already; it was tried again as often as the deadline allowed."""


class Internal(ParleyError):
    """A defect of the server: quote ``metadata["error_id"]``."""


class Unimplemented(ParleyError):
    """The method does not exist in the server's version."""


class ClaimCodeInvalid(ParleyError):
    """The claim code is unknown, used or expired."""


class MarketerNotFound(ParleyError):
    """No such marketer is visible to you."""


class KeyInvalid(ParleyError):
    """The public key is malformed, of small order or not canonical: make a new key pair."""


class MarketerSuspended(ParleyError):
    """The marketer is suspended: contact the operator."""


class AttributeUnknown(ParleyError):
    """No such attribute is in the catalogue."""


class ValueInvalid(ParleyError):
    """A value or a question is not of the attribute's type, unit or pattern."""


class ItemNotFound(ParleyError):
    """No such item is visible to you."""


class PermitInvalid(ParleyError):
    """The permit does not hold."""


class PermitExpired(ParleyError):
    """The permit's time is over."""


class ImportNotFound(ParleyError):
    """No such import is visible to you."""


class InvalidConsentPurpose(ParleyError):
    """The purpose is not in the vocabulary, or not one that this marketer may ask for."""


class ConsentNotFound(ParleyError):
    """No such consent is visible to you."""


class OfferNotFound(ParleyError):
    """No such offer is visible to you."""


class InvalidConsentStatus(ParleyError):
    """The offer was answered already, or its decision deadline has passed."""


class RuleNotFound(ParleyError):
    """No such rule is visible to you."""


class TooManyRules(ParleyError):
    """As many rules stand as one may have."""


class InvalidDateRange(ParleyError):
    """The dates don't fit together, or lie outside what the purpose allows."""


class ExchangeNotFound(ParleyError):
    """No such exchange is visible to you."""


class ResumeTokenInvalid(ParleyError):
    """The resume token is not one of this feed's."""


class DeliveryNotFound(ParleyError):
    """No such delivery is visible to you."""


class VerificationRequired(ParleyError):
    """The marketer's verification level is too low for this purpose or attribute: ask the operator to be verified."""


class ProofNotFound(ParleyError):
    """The log holds no such entry, even after waiting for it."""


class DeadlineExceeded(ParleyError):
    """No answer came in time: check that Parley runs at this address, or allow more time."""


class Interrupted(ParleyError):
    """
    The connection broke in the middle, or something between here and Parley did.

    A call was tried again as often as the deadline allowed.
    """


class SettingsInvalid(ValueError):
    """A setting is missing, or the file it names can't be used. The message names it."""


class DeliveryInvalid(Exception):
    """A delivery is not for this key, not signed by whom we trust, or says other than its envelope. Keep it: it is evidence."""


class ReceiptInvalid(Exception):
    """A receipt doesn't prove what was delivered. Keep it: a log that signs falsely is at fault."""


_BROKEN = {Code.CANCELLED, Code.UNKNOWN, Code.INTERNAL}
"""What gRPC itself, or a proxy, answers when a connection breaks."""


def error_from(failed: grpc.RpcError) -> ParleyError:
    """Read a failed call."""
    fault = fault_from(failed)
    error = _class_of(fault)(
        fault.reason,
        fault.message,
        metadata=fault.metadata,
        violations=fault.violations,
        retry_after=fault.retry_after,
    )
    error.is_foreign = isinstance(fault, ForeignFault) and fault.reason == fault.code.name
    return error


def deadline_exceeded(seconds: float, address: str, last: ParleyError | None = None) -> DeadlineExceeded:
    """Say that no answer came within so many seconds, and what was heard last."""
    heard = f" (heard last: {last.reason}, {last.message})" if last else ""
    message = (
        f"no answer within {seconds:g} s: check that Parley runs at {address}, or allow more time{heard}; what was asked for may"
        " have happened all the same, so ask again with the same request_id if it must happen once"
    )
    return DeadlineExceeded(Code.DEADLINE_EXCEEDED.name, message)


def sign_in_refused(refused: Unauthenticated, subject: str) -> Unauthenticated:
    """Say what keeps whoever signs in from it: identity doesn't."""
    message = f"{subject} can't sign in: check that name, that its signing key is registered, and this machine's clock"
    return Unauthenticated(refused.reason, message, metadata=refused.metadata)


def _class_of(fault: Fault) -> type[ParleyError]:
    if isinstance(fault, ForeignFault) and fault.reason == fault.code.name and fault.code in _BROKEN:
        return Interrupted
    return _by_reason().get(fault.reason, ParleyError)


@cache
def _by_reason() -> Mapping[str, type[ParleyError]]:
    return {_reason(kind.__name__): kind for kind in ParleyError.__subclasses__()}


def _reason(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).lstrip("_").upper()
