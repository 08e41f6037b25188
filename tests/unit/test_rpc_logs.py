import errno
import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from parley_rpc import logs

SECRET = "jane.doe@example.org"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def crash(value: str) -> None:
    try:
        dict[str, str]()[value]
    except KeyError as error:
        raise ValueError(f"bad {value}") from error


def test_line_holds_allowed_fields_and_names_the_rest(stream: io.StringIO) -> None:
    logs.logger("vault", stream).info("item_stored", count=1, email=SECRET)
    (line,) = lines(stream)

    assert (line["event"], line["service"], line["level"], line["count"]) == ("item_stored", "vault", "info", 1)
    assert line["dropped"] == ["email"]
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize("given", [True, "the exception itself"])
def test_exception_is_types_and_frames_never_text(stream: io.StringIO, given: object) -> None:
    log = logs.logger("vault", stream)
    try:
        crash(SECRET)
    except ValueError as error:
        log.error("failed", exc_info=True if given is True else error)  # noqa: TRY400 - both forms are under test
    (line,) = lines(stream)

    assert line["error_type"] == "ValueError < KeyError"
    assert [frame.split()[1] for frame in line["where"].split("; ")] == [
        "test_exception_is_types_and_frames_never_text",
        "crash",
        "crash",
    ]
    assert SECRET not in stream.getvalue()


def test_group_shows_the_types_of_its_members(stream: io.StringIO) -> None:
    group = ExceptionGroup(SECRET, [ValueError(SECRET), ExceptionGroup(SECRET, [OSError(SECRET)])])
    logs.logger("vault", stream).error("failed", exc_info=group)

    assert lines(stream)[0]["error_type"] == "ExceptionGroup < ValueError < ExceptionGroup < OSError"
    assert SECRET not in stream.getvalue()


def test_exception_that_is_its_own_cause_ends(stream: io.StringIO) -> None:
    error = ValueError()
    error.__cause__ = KeyError()
    error.__cause__.__cause__ = error
    logs.logger("vault", stream).error("failed", exc_info=error)

    assert lines(stream)[0]["error_type"] == "ValueError < KeyError"


@pytest.mark.usefixtures("root_logger")
def test_libraries_speak_without_their_texts(stream: io.StringIO) -> None:
    logs.adopt_libraries(logs.logger("vault", stream))
    speaker = logging.getLogger("asyncio")
    speaker.error("future: %s", SECRET)
    speaker.info(SECRET)
    try:
        crash(SECRET)
    except ValueError:
        speaker.exception(SECRET)

    assert SECRET not in stream.getvalue()
    assert [(line["logger"], line.get("error_type")) for line in lines(stream)] == [
        ("asyncio", None),
        ("asyncio", "ValueError < KeyError"),
    ]
    assert lines(stream)[0]["where"].startswith("test_rpc_logs:")


class Clogged(io.StringIO):
    """A log whose disk is full, or whose reader is gone, until that is mended."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    def write(self, text: str) -> int:
        if self.error:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(), ValueError("I/O on closed file")]
)
def test_line_that_can_not_be_written_is_lost_and_nothing_else(root_logger: None, error: Exception) -> None:
    stream = Clogged(error)
    log = logs.logger("vault", stream)
    logs.adopt_libraries(log)

    log.warning("lost")
    logging.getLogger("library").warning("lost as well")
    stream.error = None
    log.warning("told")

    assert ["told"] == [line["event"] for line in lines(stream)]


def test_log_on_a_full_disk_stops_nobody() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        log = logs.logger("vault", full)
        for _ in range(1000):
            log.warning("lost")
        with suppress(OSError):
            full.close()


def test_less_than_the_level_is_silent(stream: io.StringIO) -> None:
    logs.logger("vault", stream).debug("detail")

    assert stream.getvalue() == ""
