"""Running what a command does against a running Parley, and saying in a sentence why it couldn't be done."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from parley_client import errors
from parley_client.connection import Connection
from parley_crypto.keyfiles import KeyFileUnusable
from parley_crypto.trust import TrustUnusable
from parley_node.cli import show
from parley_node.cli.stop import Stop
from parley_node.conditions_text import ConditionUnclear
from parley_node.embedded.paths import holder, try_lock
from parley_node.home import Home, NotRunning, Running
from parley_node.people import staff

T = TypeVar("T")

_ENDING_S = 60.0
"""Longer than calls that are under way, and the servers, have to end."""

_STEPS: dict[type[Exception], str] = {
    errors.Unavailable: "`parley doctor` looks at what Parley stands on.",
    errors.ClocksApart: "`timedatectl` says whether a machine's clock is set by NTP.",
    errors.DeadlineExceeded: "`parley doctor` looks at what Parley stands on.",
    errors.Interrupted: "Try again; `parley doctor` looks at what Parley stands on.",
    errors.AttributeUnknown: "`parley attributes` lists what there is.",
    errors.ValueInvalid: "`parley attributes PREFIX` says what values look like.",
    errors.ItemNotFound: "`parley customer items` lists what is in the bank.",
    errors.VerificationRequired: "`parley operator level MARKETER verified` raises the level.",
    errors.MarketerSuspended: "`parley operator reinstate MARKETER` ends the suspension.",
    errors.Unauthenticated: "Check this machine's clock, that the key is this home's, and that no marketer is suspended.",
    errors.Internal: "What happened is in the .log files of Parley's home, beside that id.",
    errors.InvalidConsentStatus: "`parley customer inbox --all` and `parley customer consents` say where it stands.",
    errors.DeliveryInvalid: "Keep it: it is evidence.",
    errors.ReceiptInvalid: "Keep it: a log that signs falsely is at fault.",
}


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Raises Stop for whatever the other side, or this machine, refuses."""
    try:
        return asyncio.run(work)
    except (errors.ParleyError, errors.DeliveryInvalid, errors.ReceiptInvalid) as error:
        raise Stop(*explain(error)) from error
    except (NotRunning, KeyFileUnusable, TrustUnusable, errors.SettingsInvalid, ConditionUnclear) as error:
        raise Stop(str(error)) from error
    except (OSError, TypeError, ValueError) as error:
        raise Stop(local(error)) from error


def explain(error: Exception) -> tuple[str, str]:
    """Say why a call failed, and what to do next."""
    step = next((step for kind, step in _STEPS.items() if isinstance(error, kind)), "")
    if isinstance(error, errors.ParleyError):
        wrong = "; ".join(f"{each.field}: {each.description}" for each in error.violations)
        about = "; ".join(filter(None, (wrong, error.metadata.get("error_id"))))
        return f"{error.message} ({error.reason}{': ' + about if about else ''})", step
    return str(error), step


def running(home: Path | None) -> tuple[Home, Running]:
    """Find the home and where its Parley answers. Raises NotRunning."""
    chosen = Home.choose(home)
    return chosen, chosen.running()


@contextmanager
def alone(home: Home, otherwise: str) -> Iterator[None]:
    """
    Hold a home, once whoever is just ending on it is gone: its servers end with it.

    Raises Stop where somebody else runs on it; what else could be done stands in ``otherwise``.
    """
    home.make()
    until, told = time.monotonic() + _ENDING_S, False
    while (lock := try_lock(home.lock)) is None:
        _refuse_second(home, otherwise)
        if time.monotonic() > until:
            raise Stop(
                f"another process{_named(home)} starts or ends on {home.root}, and isn't done",
                f"`fuser {home.lock}` names it.",
            )
        if not told:
            show.say(f"Waiting for another Parley{_named(home)} to end on this home.")
            told = True
        time.sleep(0.1)
    try:
        _refuse_second(home, otherwise)  # one of an earlier version holds no lock
        yield
    finally:
        os.close(lock)


def _named(home: Home) -> str:
    pid = holder(home.lock)
    return f", process {pid}," if pid else ""


def _refuse_second(home: Home, otherwise: str) -> None:
    """Raise Stop where Parley runs on this home."""
    with suppress(NotRunning):
        now = home.running()
        step = f"Stop it with `kill {now.pid}`{otherwise}."
        raise Stop(f"Parley runs on {home.root} already, as process {now.pid}, and answers on {now.address}", step)


def as_operator(home: Path | None, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """Do something as the operator of a home."""

    async def act() -> T:
        chosen, now = running(home)
        async with staff(now.address, chosen, "operator") as connection:
            return await work(connection)

    return run(act())


def local(error: Exception) -> str:
    """What is wrong here, and with which file."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
