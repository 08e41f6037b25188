"""
Logs: one JSON object a line, on standard error, fields by allow-list (``parley_kit.redact``).

An exception is logged as its types and frames. Its message and its locals never are: they are where values would leak.
A line that can't be written is lost, and no more than that.
"""

import io
import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger

from parley_kit.redact import keep_allowed

_MAX_FRAMES = 24


def logger(service: str, stream: TextIO = sys.stderr, level: int = logging.INFO) -> FilteringBoundLogger:
    """Make the log of one service. Nothing global is touched; contextvars bound by the server's chain are included."""
    log: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", _Lossy(stream))),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _flatten_exception,
            _allow_listed,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        service=service,
    )
    return log


def adopt_libraries(log: FilteringBoundLogger, level: int = logging.WARNING) -> None:
    """
    Send what libraries log through ``log`` as well: once, by a process's main.

    Only who spoke, where, and an exception's types survive: their texts hold whatever they were handed.
    """
    logging.basicConfig(handlers=[_Bridge(log)], level=level, force=True)


class _Lossy(io.TextIOBase):
    """
    A stream that drops what it can't write, since its disk is full, or its reader gone.

    Whoever logs is mostly in the midst of outliving something else: an error from here would end loops that nothing else ends.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Bridge(logging.Handler):
    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        where = {} if record.exc_info else {"where": f"{record.module}:{record.lineno}"}
        self._log.log(record.levelno, "library_message", logger=record.name, exc_info=record.exc_info, **where)


def _allow_listed(_log: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return keep_allowed(event)


def _flatten_exception(_log: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exception() if given is True else given
    if isinstance(error, BaseException):
        event["error_type"] = " < ".join(type(link).__qualname__ for link in _chain(error))
        event["where"] = "; ".join(_frames(error))
    return event


def _chain(error: BaseException, seen: set[int] | None = None) -> Iterator[BaseException]:
    seen = set() if seen is None else seen
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        for member in link.exceptions if isinstance(link, BaseExceptionGroup) else ():
            yield from _chain(member, seen)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _frames(error: BaseException) -> Iterator[str]:
    for link in _chain(error):
        for frame in traceback.extract_tb(link.__traceback__, limit=-_MAX_FRAMES):
            path = Path(frame.filename)
            yield f"{path.parent.name}/{path.name}:{frame.lineno} {frame.name}"
