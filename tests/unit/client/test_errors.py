import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

from parley.common.v1.error_reason_pb2 import ErrorReason
from parley_client import errors
from parley_kit.faults import Code, Fault, NotSupportedYet, Violation
from parley_rpc.status import to_status

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()][1:]  # noqa: SIM118 - no dict


def failed(status: Status) -> grpc.aio.AioRpcError:
    sent = rpc_status.to_status(status)
    nothing, trailing = grpc.aio.Metadata(), grpc.aio.Metadata(*sent.trailing_metadata)
    return grpc.aio.AioRpcError(sent.code, nothing, trailing, sent.details)


def refused(reason: str) -> errors.ParleyError:
    status = Status(code=Code.PERMISSION_DENIED, message="Because.")
    status.details.add().Pack(ErrorInfo(reason=reason, domain="parley", metadata={"error_id": "e1"}))
    return errors.error_from(failed(status))


@pytest.mark.parametrize("reason", REASONS)
def test_every_public_reason_has_a_class_of_its_own(reason: str) -> None:
    error = refused(reason)

    assert reason.replace("_", "").lower() == type(error).__name__.lower()
    assert (reason, "Because.", {"error_id": "e1"}) == (error.reason, error.message, error.metadata)


def test_every_class_but_two_stands_for_a_public_reason() -> None:
    local = {errors.DeadlineExceeded, errors.Interrupted}

    assert {type(refused(reason)) for reason in REASONS} == set(errors.ParleyError.__subclasses__()) - local


def test_a_reason_of_a_newer_server_is_still_a_parley_error() -> None:
    error = refused("MOON_IN_THE_WRONG_PHASE")

    assert (errors.ParleyError, "MOON_IN_THE_WRONG_PHASE") == (type(error), error.reason)


def test_errors_tell_which_fields_are_wrong_and_how_long_to_wait() -> None:
    fault: Fault = NotSupportedYet("Leave it out.", violations=[Violation("terms.goals", "not yet")], retry_after=1.5)
    error = errors.error_from(failed(to_status(fault)))

    assert isinstance(error, errors.NotSupportedYet)
    assert "NOT_SUPPORTED_YET: Leave it out. (terms.goals: not yet)" == str(error)
    assert 1.5 == error.retry_after


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, errors.Interrupted),
        (grpc.StatusCode.UNKNOWN, errors.Interrupted),
        (grpc.StatusCode.INTERNAL, errors.Interrupted),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unimplemented),
        (grpc.StatusCode.OUT_OF_RANGE, errors.ParleyError),
    ],
)
def test_errors_of_grpc_itself_have_classes_too(code: grpc.StatusCode, kind: type[errors.ParleyError]) -> None:
    nothing = grpc.aio.Metadata()

    assert kind is type(errors.error_from(grpc.aio.AioRpcError(code, nothing, nothing, "broken")))
