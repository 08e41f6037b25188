from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

import parley_node.node  # noqa: F401 - all services, and so all faults
from parley.common.v1 import error_reason_pb2
from parley_kit import faults
from parley_kit.faults import Code, Fault, Internal, Unavailable, Violation
from parley_rpc.status import ForeignFault, Unimplemented, fault_from, to_status

OURS = [kind for kind in Fault.__subclasses__() if kind.__module__ == faults.__name__]


def over_the_wire(sent: Status) -> Fault:
    answer = rpc_status.to_status(Status.FromString(sent.SerializeToString()))
    return fault_from(failed(answer.code, answer.details, answer.trailing_metadata))


def failed(code: grpc.StatusCode, details: str, trailing: object = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)  # type: ignore[misc]


@pytest.mark.parametrize("kind", [*OURS, Unimplemented], ids=lambda kind: kind.__name__)
def test_every_fault_comes_back_as_itself(kind: type[Fault]) -> None:
    sent = kind(metadata={"pseudonym": "p1"}, violations=[Violation("a.b[2]", "is wrong")], retry_after=0.125)
    back = over_the_wire(to_status(sent))

    assert kind is type(back)
    assert (sent.code, sent.reason, sent.message) == (back.code, back.reason, back.message)
    assert (sent.metadata, sent.violations, sent.retry_after) == (back.metadata, back.violations, back.retry_after)


def test_every_reason_is_in_the_public_enum() -> None:
    public = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - no dict

    assert public >= {kind.reason for kind in OURS} | {Unimplemented.reason}


def test_error_info_is_always_there_and_the_others_only_when_they_apply() -> None:
    plain = to_status(Unavailable())
    rich = to_status(Unavailable(violations=[Violation("a", "b")], retry_after=2))

    assert [ErrorInfo.DESCRIPTOR.full_name] == [d.TypeName() for d in plain.details]
    assert [kind.DESCRIPTOR.full_name for kind in (ErrorInfo, BadRequest, RetryInfo)] == [
        d.TypeName() for d in rich.details
    ]


def test_error_id_joins_the_metadata() -> None:
    assert over_the_wire(to_status(Internal(), "e1")).metadata == {"error_id": "e1"}


def test_unknown_reason_keeps_what_it_says() -> None:
    sent = Status(code=9, message="Wait for the moon.")
    sent.details.add().Pack(ErrorInfo(reason="MOON_TOO_LOW", domain="parley", metadata={"phase": "new"}))
    back = over_the_wire(sent)

    assert (ForeignFault, Code.FAILED_PRECONDITION, "MOON_TOO_LOW") == (type(back), back.code, back.reason)
    assert (back.message, back.metadata) == ("Wait for the moon.", {"phase": "new"})


def test_foreign_fault_never_stands_for_a_reason() -> None:
    ForeignFault(Code.ABORTED, "CONFLICT", "x")

    assert faults.Conflict is type(over_the_wire(to_status(faults.Conflict())))
    assert Fault.code is Code.INTERNAL


def test_other_domains_reasons_are_not_taken_for_ours() -> None:
    sent = Status(code=5, message="no")
    sent.details.add().Pack(ErrorInfo(reason="CONFLICT", domain="googleapis.com"))

    assert ForeignFault is type(over_the_wire(sent))


def test_bare_status_of_grpc_itself_becomes_a_fault() -> None:
    lost = fault_from(failed(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; ipv4:10.0.0.1"))
    big = fault_from(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"))

    assert (Unavailable, Unavailable().message) == (type(lost), lost.message)
    assert (ForeignFault, "RESOURCE_EXHAUSTED") == (type(big), big.reason)


@pytest.mark.parametrize(
    "trailer",
    [b"\xff\xff", Status(code=3, message="other").SerializeToString()],
    ids=["garbage", "contradiction"],
)
def test_trailer_that_is_not_ours_is_ignored(trailer: bytes) -> None:
    back = fault_from(failed(grpc.StatusCode.NOT_FOUND, "gone", (("grpc-status-details-bin", trailer),)))

    assert (ForeignFault, Code.NOT_FOUND, "gone") == (type(back), back.code, back.message)


def test_a_reason_has_one_class() -> None:
    ours = [kind for kind in _all(Fault) if kind.__module__.startswith("parley_") and "reason" in vars(kind)]
    assert [] == [reason for reason, many in Counter(kind.reason for kind in ours).items() if many > 1]
    assert {"CONSENT_NOT_FOUND", "VALUE_INVALID", "CONFLICT"} <= {kind.reason for kind in ours}


def _all(kind: type[Fault]) -> Iterator[type[Fault]]:
    for child in kind.__subclasses__():
        yield child
        yield from _all(child)


def test_fault_with_a_constructor_of_its_own_comes_back() -> None:
    class Particular(Fault):
        """Needs an argument."""

        code, reason = Code.ABORTED, "PARTICULAR"

        def __init__(self, needed: int) -> None:
            super().__init__(f"Needs {needed}.")

    back = over_the_wire(to_status(Particular(3)))

    assert (Particular, "Needs 3.") == (type(back), back.message)


def test_refusal_of_a_hostile_request_fits_a_clients_default_trailers() -> None:
    sent = to_status(faults.InvalidRequest(violations=[Violation("child." * 60, "is required")] * 1000))

    assert len(sent.SerializeToString()) * 4 / 3 < 8192
