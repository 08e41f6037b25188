import inspect

import grpc
import pytest

from parley.common.v1.error_reason_pb2 import ErrorReason
from parley_kit import faults
from parley_kit.faults import Code, Fault, InvalidRequest, Unavailable, Violation

OWN = [kind for _, kind in inspect.getmembers(faults, inspect.isclass) if issubclass(kind, Fault)]


class Long(Fault):
    """
    A message over
    two lines.
    """


def test_message_is_the_docstring_on_one_line() -> None:
    assert "A message over two lines." == Long().message == str(Long())


def test_message_of_the_moment_wins() -> None:
    assert "This once." == Unavailable("This once.").message == str(Unavailable("This once."))


def test_details_are_kept_apart_from_whoever_gave_them() -> None:
    metadata, violations = {"retry": "1"}, [Violation("terms", "is required")]
    fault = InvalidRequest(metadata=metadata, violations=violations, retry_after=2.5)
    metadata.clear()
    violations.clear()

    assert ({"retry": "1"}, (Violation("terms", "is required"),), 2.5) == (
        fault.metadata,
        fault.violations,
        fault.retry_after,
    )
    assert ({}, (), None) == (InvalidRequest().metadata, InvalidRequest().violations, InvalidRequest().retry_after)


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_every_fault_has_a_sentence_and_a_reason_that_programs_know(kind: type[Fault]) -> None:
    assert kind().message
    assert ErrorReason.Value(f"ERROR_REASON_{kind.reason}") > 0


def test_codes_are_grpcs() -> None:
    assert {code.name: code.value[0] for code in grpc.StatusCode if code.value[0]} == {
        code.name: code.value for code in Code
    }
