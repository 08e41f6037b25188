"""The checker of histories: it has nothing to say about a good one, and finds each way to tamper with it."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.checker import (
    ACKNOWLEDGED,
    FINALIZED,
    NOTIFIED,
    SETTLED,
    TERMINATED,
    WITHDRAWN,
    Consent,
    Databases,
    Kind,
    Line,
    Participant,
    Place,
    Settlement,
    read_history,
    violations,
)
from tests.support.history import History
from tests.support.openings import Opening

M = "marketers/m"
X = f"{M}/exchanges/x"
PEOPLE = ("ana", "bea", "cem")
"""Ana's release arrives, Bea's is overtaken by her withdrawal, and Cem's arrives before his."""


def _detail(name: str, release: str = "") -> bytes:
    said = {"kind": SETTLED, "marketer": M, "exchange": X, "pseudonym": name, "release": release or f"r-{name}"}
    return json.dumps({**said, "consent": f"consents/{name}"}).encode()


def _opening(detail: bytes) -> Opening:
    return Opening(hashlib.sha256(b"salt" + detail).digest(), b"salt", detail)


def _kept(name: str, release: str = "") -> Opening:
    """What audit can say of an acknowledgement."""
    said = {"kind": ACKNOWLEDGED, "marketer": M, "exchange": X, "pseudonym": name, "release": release or f"r-{name}"}
    return _opening(json.dumps(said).encode())


def _change(kind: str, name: str) -> Opening:
    """What audit can say of a withdrawal, or of the notice about one."""
    said = {"kind": kind, "marketer": M, "consent": f"consents/{name}", "pseudonym": name}
    return _opening(json.dumps({**said, **({"notice": "ConsentRevoked"} if kind == NOTIFIED else {})}).encode())


CHANGES = [_change(kind, name) for name in ("bea", "cem") for kind in (WITHDRAWN, NOTIFIED)]
OPENINGS = [*(_opening(_detail(name)) for name in PEOPLE), *CHANGES, _kept("ana")]


def _settlement(name: str) -> Settlement:
    return Settlement(X, name, f"r-{name}", f"consents/{name}", b"salt", _detail(name))


def _delivered(name: str, at: float, release: str = "") -> Line:
    line = {"at": at, "what": "delivered", "caller": M, "delivery": name, "exchange": X, "pseudonym": name}
    opened = {"exchange": X, "pseudonym": name, "release": release or f"r-{name}", "town": f"{name}'s town"}
    return {
        **line,
        "release": release or f"r-{name}",
        "salt": b"salt".hex(),
        "detail": _detail(name).hex(),
        "opened": opened,
    }


def _notified(name: str, delivery: str = "", pseudonym: str = "") -> Line:
    line = {"at": 4.0, "what": "notified", "caller": M, "delivery": delivery or f"notice of {name}"}
    return {**line, "consent": f"consents/{name}", "pseudonym": pseudonym or name, "notice": "ConsentRevoked"}


def _failed(code: str) -> Line:
    return {"at": 4.0, "what": "failed", "caller": M, "request_id": "", "code": code}


def _withdrawn(name: str, at: float, *releases: str) -> Line:
    return {"at": at, "what": "withdrawn", "consent": f"consents/{name}", "releases": list(releases)}


def _placed(openings: Sequence[Opening]) -> dict[str, Any]:
    """An entry of nothing, one of the first, and one of each pair of the others."""
    first, *others = [opening.commitment for opening in openings]
    places = [Place(first, 1, 0, b"")]
    for at, (one, other) in enumerate(zip(others[::2], [*others[1::2], bytes(32)], strict=False), 2):
        places.append(Place(one, at, 0, hashlib.sha256(b"\x00" + other).digest()))
        if other != bytes(32):
            places.append(Place(other, at, 1, hashlib.sha256(b"\x00" + one).digest()))
    entries = {place.entry: b"\x01" + place.root for place in places}
    return {"places": places, "entries": {0: b"\x01" + bytes(32), **entries}}


HISTORY: Sequence[Line] = (
    {"at": 1.0, "what": "asked", "caller": M, "request_id": "q", "customers": 3},
    {"at": 1.1, "what": "answered", "caller": M, "request_id": "q", "outcome": X},
    _withdrawn("bea", 1.5, "r-bea"),
    _delivered("ana", 2.0),
    _delivered("cem", 2.0),
    {"at": 2.1, "what": "acknowledged", "caller": M, "exchange": X, "pseudonym": "ana"},
    _withdrawn("cem", 3.0, "r-cem"),
    _notified("bea"),
    _notified("cem"),
)
FOUND = Databases(
    settlements=[_settlement(name) for name in PEOPLE],
    consents=[Consent(f"consents/{name}", name, 5 if name == "ana" else 7) for name in PEOPLE],
    participants=[
        Participant(X, "ana", FINALIZED, acknowledged=True, release="r-ana"),
        Participant(X, "bea", TERMINATED, acknowledged=False),
        Participant(X, "cem", FINALIZED, acknowledged=False, release="r-cem"),
    ],
    exchanges=[X],
    answers={(M, "q"): b"\x0a" + X.encode()},
    history=OPENINGS,
    **_placed(OPENINGS),
)


def _found(**changed: Any) -> Databases:
    return replace(FOUND, **changed)


def _logged(*openings: Opening, log: Sequence[Opening] | None = None) -> Databases:
    """Audit's, with these openings, and the same in the log unless it is said what."""
    return _found(history=openings, **_placed(openings if log is None else log))


def _kinds(history: Sequence[Line], found: Databases = FOUND) -> set[Kind]:
    return {violation.kind for violation in violations(history, found)}


def test_good_history_has_no_violation() -> None:
    assert [] == violations(HISTORY, FOUND)


def test_history_without_anything_has_no_violation() -> None:
    assert [] == violations([], Databases())


def _salted(one: Opening) -> Opening:
    """The same said once more."""
    return Opening(hashlib.sha256(b"pepper" + one.detail).digest(), b"pepper", one.detail)


BAD_DATABASES: Sequence[tuple[Kind, Databases]] = [
    (Kind.NO_END, _found(participants=[*FOUND.participants[:2], replace(FOUND.participants[2], state=3)])),
    (Kind.TWO_ENDS, _found(participants=[*FOUND.participants, replace(FOUND.participants[0], state=TERMINATED)])),
    (Kind.TWO_ENDS, _found(participants=[replace(FOUND.participants[0], state=6), *FOUND.participants[1:]])),
    (Kind.TWO_RELEASES, _found(settlements=[*FOUND.settlements, replace(FOUND.settlements[0], release="r-2")])),
    (Kind.LOST, _found(exchanges=[])),
    (Kind.LOST, _found(participants=FOUND.participants[:2])),
    (Kind.LOST, _found(participants=[replace(each, acknowledged=False) for each in FOUND.participants])),
    (Kind.ESCAPED, _found(settlements=[*FOUND.settlements[:2], replace(FOUND.settlements[2], release="r-3")])),
    (Kind.UNEQUAL, _found(settlements=FOUND.settlements[1:])),
    (Kind.UNEQUAL, _found(participants=FOUND.participants[1:])),
    (Kind.UNEQUAL, _found(participants=[replace(FOUND.participants[0], release="r-cem"), *FOUND.participants[1:]])),
    (Kind.UNEQUAL, _found(participants=[replace(each, release="") for each in FOUND.participants])),
    (Kind.UNEQUAL, _found(participants=[*FOUND.participants[:2], replace(FOUND.participants[2], release="")])),
    (Kind.UNEQUAL, _logged(*OPENINGS, log=OPENINGS[1:])),
    (Kind.UNEQUAL, _logged(*OPENINGS[1:])),
    (Kind.UNEQUAL, _logged(*OPENINGS, _opening(_detail("dan")))),  # a release that nobody else knows
    (Kind.UNEQUAL, _logged(*OPENINGS, _kept("cem"))),  # an acknowledgement that broker doesn't know
    (Kind.UNEQUAL, _logged(*OPENINGS[:-1])),
    (Kind.UNEQUAL, _logged(*OPENINGS[:-1], _kept("ana", "r-other"))),
    (Kind.TWO_RELEASES, _logged(*OPENINGS, _opening(_detail("ana", "r-2")))),
    (Kind.LEAF_MISSING, _logged(*OPENINGS, log=OPENINGS[:2])),
    (Kind.LEAF_MISSING, _logged(*OPENINGS[:2], log=OPENINGS)),
    (Kind.LEAF_UNKNOWN, _logged(*OPENINGS, log=[*OPENINGS, _kept("dan")])),
    (Kind.LEAF_UNKNOWN, _logged(*OPENINGS, replace(OPENINGS[0], commitment=b"another", detail=b'{"kind": ""}'))),
    (Kind.LEAF_MISSING, _found(entries={})),
    (Kind.LEAF_MISSING, _found(entries={**FOUND.entries, 99: b"\x01" + bytes(31) + b"x"})),
    (Kind.LEAF_MISSING, _found(places=[replace(FOUND.places[0], entry=2), *FOUND.places[1:]])),
    (Kind.LEAF_MISSING, _found(places=[*FOUND.places[:1], replace(FOUND.places[1], index=1), *FOUND.places[2:]])),
    (Kind.LEAF_TWICE, _logged(*OPENINGS, log=[*OPENINGS, OPENINGS[0]])),
    (Kind.LEAF_TWICE, _logged(*OPENINGS, OPENINGS[0], log=OPENINGS)),
    (Kind.LEAF_TWICE, _found(entries={**FOUND.entries, len(FOUND.entries): FOUND.entries[0]})),
    (Kind.UNEQUAL, _found(consents=[replace(each, state=5) for each in FOUND.consents])),
    (Kind.UNEQUAL, _found(consents=[replace(each, state=7) for each in FOUND.consents])),
    *((Kind.UNEQUAL, _logged(*(each for each in OPENINGS if each != one))) for one in CHANGES),
    *((Kind.TOLD_TWICE, _logged(*OPENINGS, _salted(one))) for one in CHANGES),
    (Kind.TWO_OUTCOMES, _found(answers={(M, "q"): b"something else"})),
    (Kind.TWO_OUTCOMES, _found(exchanges=[X, f"{M}/exchanges/y"])),
]


@pytest.mark.parametrize(("kind", "found"), BAD_DATABASES)
def test_database_that_was_tampered_with_is_found_out(kind: Kind, found: Databases) -> None:
    assert kind in _kinds(HISTORY, found)


def _opened(name: str, **instead: str) -> Line:
    line = _delivered(name, 2.0)
    return {**line, "opened": {**line["opened"], **instead}}


def _is_cems(line: Line) -> bool:
    return line.get("delivery") == "cem"


BAD_HISTORIES: Sequence[tuple[Kind, Callable[[], Sequence[Line]]]] = [
    (Kind.LOST, lambda: [line for line in HISTORY if line.get("delivery") != "ana"]),
    (Kind.TWO_RELEASES, lambda: [*HISTORY, _delivered("ana", 2.0, release="r-other")]),
    (Kind.ESCAPED, lambda: [_withdrawn("ana", 1.9), *HISTORY]),  # named by no answer, and settled and sent
    (Kind.ESCAPED, lambda: [*HISTORY, _delivered("cem", 5.1)]),  # named, and sent again much later
    (Kind.UNEQUAL, lambda: [*HISTORY, {**_delivered("dan", 2.0), "pseudonym": "ana"}]),
    (Kind.LEAF_MISSING, lambda: [*HISTORY, _delivered("dan", 2.0)]),
    (Kind.ANOTHERS, lambda: [*HISTORY, {**_delivered("cem", 2.0), "detail": _detail("ana").hex()}]),
    (Kind.ANOTHERS, lambda: [*HISTORY, _opened("cem", pseudonym="ana")]),
    (Kind.ANOTHERS, lambda: [*HISTORY, _opened("cem", town="another town")]),
    (Kind.ANOTHERS, lambda: [_opened("cem", town="ana's town") if _is_cems(line) else line for line in HISTORY]),
    (Kind.UNEQUAL, lambda: [line for line in HISTORY if line.get("delivery") != "notice of bea"]),
    (Kind.UNEQUAL, lambda: [line for line in HISTORY if line != _withdrawn("bea", 1.5, "r-bea")]),
    (Kind.TOLD_TWICE, lambda: [*HISTORY, _notified("bea", "another")]),
    (Kind.ANOTHERS, lambda: [*HISTORY, _notified("bea", pseudonym="ana")]),
    (Kind.TWO_OUTCOMES, lambda: [*HISTORY, {**HISTORY[1], "outcome": f"{M}/exchanges/y"}]),
    *((Kind.WRONG_REFUSAL, lambda code=code: [*HISTORY, _failed(code)]) for code in ("INTERNAL", "NOT_FOUND")),
]


@pytest.mark.parametrize(("kind", "history"), BAD_HISTORIES)
def test_history_that_was_tampered_with_is_found_out(kind: Kind, history: Callable[[], Sequence[Line]]) -> None:
    assert kind in _kinds(history())


def test_release_that_a_standing_broker_sent_late_is_not_held_against_it() -> None:
    late = _delivered("cem", 6.0)
    stopped = {"at": 5.9, "what": "stopped", "process": "broker", "since": 2.9}

    assert Kind.ESCAPED in _kinds([*HISTORY, late])
    assert Kind.ESCAPED in _kinds([*HISTORY, late, {**stopped, "process": "vault"}])  # it has nothing to send
    assert set() == _kinds([*HISTORY, late, stopped])


def test_first_answer_to_a_withdrawal_is_the_promise() -> None:
    assert Kind.ESCAPED not in _kinds([*HISTORY, _withdrawn("cem", 9.0)])


def test_what_is_written_down_is_what_the_checker_reads(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    history.asked(M, "q", 3)
    history.failed(M, "q", "UNAVAILABLE")
    history.answered(M, "q", X)
    history.withdrawn("consents/bea", ["r-bea"])
    history.delivered(M, SimpleNamespace(name="ana", release=_release_of("ana")))
    history.delivered(M, SimpleNamespace(name="cem", release=_release_of("cem")))
    history.acknowledged(M, X, "ana")
    history.withdrawn("consents/cem", ["r-cem"])
    history.notified(M, SimpleNamespace(name="1", notice=_notice_of("bea")))
    history.notified(M, SimpleNamespace(name="2", notice=_notice_of("cem")))
    history.stopped("broker-2", 1.0)
    history.close()

    assert [] == violations(read_history(history.path), FOUND)


def _release_of(name: str) -> Any:
    opening = SimpleNamespace(salt=b"salt", detail=_detail(name))
    return SimpleNamespace(exchange=X, pseudonym=name, release_id=f"r-{name}", opening=opening)


def _notice_of(name: str) -> Any:
    return SimpleNamespace(consent=f"consents/{name}", pseudonym=name, notice="ConsentRevoked")


def test_whoever_calls_it_wrongly_is_told_how_as_contributors_are() -> None:
    command = [sys.executable, "-m", "tests.support.checker", "history"]
    called = subprocess.run(command, check=False, capture_output=True, text=True)
    usage = called.stderr.strip().removeprefix("usage: ")
    assert (1, 1) == (called.returncode, Path("CONTRIBUTING.md").read_text(encoding="utf-8").count(f"`{usage}`"))
