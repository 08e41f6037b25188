"""What a check comes to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What came of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "not looked at"


@dataclass(frozen=True)
class Finding:
    """What one check found, and the command that mends it, if it failed."""

    check: str
    state: State
    found: str
    mend: str = ""

    def __str__(self) -> str:
        marks = {State.OK: "ok    ", State.FAILED: "FAILED", State.SKIPPED: "-     "}
        return f"{marks[self.state]}  {self.check}: {self.found}" + (f"; run `{self.mend}`" if self.mend else "")


@dataclass(eq=False)  # not frozen: a context manager that it passes through sets its traceback
class Trouble(Exception):
    """A check failed: what was found, and the command that mends it."""

    found: str
    mend: str


class NotLooked(Exception):
    """It can't be looked at here, or not before something else is mended."""


Look = Callable[[], Awaitable[str]]
"""One check: answers what is well. Raises Trouble and NotLooked."""


async def look(check: str, looking: Look) -> Finding:
    """Run a check."""
    try:
        return Finding(check, State.OK, await looking())
    except Trouble as trouble:
        return Finding(check, State.FAILED, trouble.found, trouble.mend)
    except NotLooked as reason:
        return Finding(check, State.SKIPPED, str(reason))
    except OSError as error:
        of = f"{error.filename}: " if error.filename else ""
        return Finding(
            check, State.FAILED, f"{of}{error.strerror or type(error).__name__}", "id; ls -ld HOME  # whose is it?"
        )
