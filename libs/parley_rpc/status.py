"""
Faults on the wire, both ways.

``google.rpc.Status`` with ErrorInfo always, BadRequest and RetryInfo where they apply (AIP-193), in the trailer
``grpc-status-details-bin``.

The SDK imports this module: it needs grpc, googleapis-common-protos and parley_kit only.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # neither ships types
from grpc_status import rpc_status

from parley_kit.faults import Code, Fault, Unavailable, Violation

DOMAIN = "parley"
# Clients refuse trailers beyond 8 KiB by default, so a hostile request must not grow its own refusal past that.
MAX_VIOLATIONS = 16
_MAX_PATH = 200

_M = TypeVar("_M", bound=Message)


class Unimplemented(Fault):
    """This method does not exist in this version: the server is older than its caller."""

    code, reason = Code.UNIMPLEMENTED, "UNIMPLEMENTED"


class ForeignFault(Fault):
    """A fault that no class here stands for: from a newer server, a proxy, or gRPC itself (reason: the code's name)."""

    def __init__(self, code: Code, reason: str, message: str) -> None:
        super().__init__(message or reason)
        vars(self).update(code=code, reason=reason)


def to_status(fault: Fault, error_id: str | None = None) -> Status:
    """Write a fault as a Status. ``error_id`` (finds the log line) joins ErrorInfo's metadata."""
    metadata = {**fault.metadata, **({"error_id": error_id} if error_id else {})}
    status = Status(code=fault.code, message=fault.message)
    status.details.add().Pack(ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=metadata))
    if fault.violations:
        status.details.add().Pack(_bad_request(fault.violations))
    if fault.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(timedelta(seconds=fault.retry_after))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


def fault_from(error: grpc.RpcError) -> Fault:
    """
    Read a failed call (``grpc.aio.AioRpcError``, or a synchronous ``grpc.RpcError``) back into a fault.

    A reason that a Fault subclass in this process declares gives that very class; anything else a
    :class:`ForeignFault`, but for a bare UNAVAILABLE, which gives Unavailable.
    """
    code = Code(error.code().value[0])
    status = _details(error)
    info = _first(status, ErrorInfo)
    if info is None or info.domain != DOMAIN:
        return _bare(code, info.reason if info else code.name, status.message or error.details() or "")
    known = _class_for(info.reason)
    fault = known.__new__(known) if known else ForeignFault(code, info.reason, status.message)
    Fault.__init__(
        fault,
        status.message,
        metadata=info.metadata,
        violations=_violations(status),
        retry_after=_retry_after(status),
    )
    return fault


def _bare(code: Code, reason: str, message: str) -> Fault:
    return Unavailable() if code is Code.UNAVAILABLE else ForeignFault(code, reason, message)


def _bad_request(violations: Iterable[Violation]) -> BadRequest:
    kept = tuple(violations)[:MAX_VIOLATIONS]
    fields = [BadRequest.FieldViolation(field=v.field[:_MAX_PATH], description=v.description) for v in kept]
    return BadRequest(field_violations=fields)


def _details(error: grpc.RpcError) -> Status:
    try:
        return rpc_status.from_call(error) or Status()
    except (ValueError, DecodeError):  # trailers that contradict the call, or are no Status: not ours
        return Status()


def _first(status: Status, kind: type[_M]) -> _M | None:
    for detail in status.details:
        found = kind()
        if detail.Is(kind.DESCRIPTOR) and detail.Unpack(found):
            return found
    return None


def _violations(status: Status) -> list[Violation]:
    bad = _first(status, BadRequest)
    return [Violation(v.field, v.description) for v in bad.field_violations] if bad else []


def _retry_after(status: Status) -> float | None:
    retry = _first(status, RetryInfo)
    return retry.retry_delay.ToTimedelta().total_seconds() if retry else None


def _class_for(reason: str) -> type[Fault] | None:
    return next((kind for kind in _descendants(Fault) if vars(kind).get("reason") == reason), None)


def _descendants(kind: type[Fault]) -> Iterator[type[Fault]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
