"""
An independent checker: ``python -m tests.support.checker HISTORY AUDIT_KEY DSN...``.

It reads a history (:mod:`tests.support.history`) and the final databases of consent, broker and audit, in any order, and says
each thing that must not be. It shares no code with what it checks: of Parley it knows its tables, that a leaf stands for the
SHA-256 of salt and detail, and how audit encrypts what it keeps (:mod:`tests.support.openings`).

A release is compared by exchange, pseudonym and release id, wherever it is: at consent, broker and audit, and the marketer's end.
"""

import asyncio
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.openings import Opening, open_history

Line = Mapping[str, Any]
Pair = tuple[str, str]
Release = tuple[str, str, str]
"""Exchange, pseudonym, release id."""

FINALIZED, TERMINATED = 5, 6
SETTLED, ACKNOWLEDGED = "consent:release:settled", "broker:release:acknowledged"
"""What audit calls a release that was committed, and one that the marketer keeps."""
REVOKED = 7
WITHDRAWN, NOTIFIED = "consent:consent:withdrawn", "consent:notice:written"
"""What audit calls a withdrawal, and what a marketer is told of it."""
TOLD = "ConsentRevoked"
WINDOW_S = 1.0
"""What was settled may be sent for so long."""
SLACK_S = 1.0
"""What a busy machine adds until the marketer notes what it was sent."""


COMES_BACK = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "UNAUTHENTICATED"}
"""What may be said to whoever asks rightly, whatever dies or is away: ask again, or sign in again, where a token has lapsed."""


class Kind(StrEnum):
    """What must not be."""

    NO_END = "no end"
    TWO_ENDS = "two ends"
    TWO_RELEASES = "two releases"
    LOST = "lost"
    ESCAPED = "escaped after a withdrawal"
    UNEQUAL = "sets unequal"
    ANOTHERS = "another customer's"
    LEAF_MISSING = "leaf missing"
    LEAF_TWICE = "leaf twice"
    LEAF_UNKNOWN = "leaf of nothing"
    TWO_OUTCOMES = "two outcomes"
    TOLD_TWICE = "told twice"
    WRONG_REFUSAL = "wrong refusal"


@dataclass(frozen=True)
class Violation:
    """One thing that must not be, and about what it is."""

    kind: Kind
    about: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}"


@dataclass(frozen=True)
class Settlement:
    """A release as consent has it."""

    exchange: str
    pseudonym: str
    release: str
    consent: str
    salt: bytes
    detail: bytes


@dataclass(frozen=True)
class Consent:
    """What was agreed, as consent has it."""

    consent: str
    pseudonym: str
    state: int


@dataclass(frozen=True)
class Participant:
    """A customer's part in an exchange as broker has it."""

    exchange: str
    pseudonym: str
    state: int
    acknowledged: bool
    release: str = ""


@dataclass(frozen=True)
class Place:
    """Where a commitment is: an entry of the log, and in the tree over which the entry has the root."""

    commitment: bytes
    entry: int
    index: int
    path: bytes

    @property
    def root(self) -> bytes:
        """Where the path leads to (RFC 6962, in a tree that is full)."""
        node, at = hashlib.sha256(b"\x00" + self.commitment).digest(), self.index
        for beside in (self.path[start : start + 32] for start in range(0, len(self.path), 32)):
            node = hashlib.sha256(b"\x01" + (beside + node if at & 1 else node + beside)).digest()
            at >>= 1
        return node


@dataclass(frozen=True)
class Databases:
    """What the databases hold in the end, of the marketers that the history names."""

    settlements: Sequence[Settlement] = ()
    consents: Sequence[Consent] = ()
    participants: Sequence[Participant] = ()
    exchanges: Sequence[str] = ()
    answers: Mapping[Pair, bytes] = field(default_factory=dict)
    """What is stored for a caller's request id."""
    places: Sequence[Place] = ()
    """Audit's, of all commitments."""
    history: Sequence[Opening] = ()
    """What audit can say of commitments."""
    entries: Mapping[int, bytes] = field(default_factory=dict)
    """The log's, by index."""

    @property
    def commitments(self) -> list[bytes]:
        """All that are in the log."""
        return [place.commitment for place in self.places]


def violations(history: Sequence[Line], found: Databases) -> list[Violation]:
    """Everything that must not be, in a history and what is left in the end."""
    case = _Case(history, found)
    checks: Sequence[Callable[[_Case], Iterator[Violation]]] = (
        _ends,
        _releases,
        _lost,
        _escaped,
        _unequal,
        _anothers,
        _leaves,
        _log,
        _outcomes,
        _withdrawals,
        _refusals,
    )
    return [violation for check in checks for violation in check(case)]


class _Case:
    """A history and databases, sorted into what the checks ask for."""

    def __init__(self, history: Sequence[Line], found: Databases) -> None:
        lines: dict[str, list[Line]] = defaultdict(list)
        for line in history:
            lines[line["what"]].append(line)
        self.asked, self.answered, self.delivered = lines["asked"], lines["answered"], lines["delivered"]
        self.acknowledged, self.stopped = lines["acknowledged"], lines["stopped"]
        self.failed = lines["failed"]
        self.notified = [line for line in lines["notified"] if line["notice"] == TOLD]
        self.found = found
        self.told = [*_told(found, {line["caller"] for line in history if "caller" in line})]
        self.withdrawn: dict[str, Line] = {}
        for line in lines["withdrawn"]:
            self.withdrawn.setdefault(line["consent"], line)  # the first answer is the promise
        self.consent_of = {each.release: each.consent for each in found.settlements}
        self.settled: list[Release] = [(one.exchange, one.pseudonym, one.release) for one in found.settlements]
        self.held: list[Release] = [_release(line) for line in self.delivered]
        self.over = {release for release in self.settled if self.consent_of[release[2]] in self.withdrawn}
        """Released, then withdrawn, before or after they were sent: either end at broker is right."""
        self.overtaken = self.over - {*self.held}
        """Those that were not sent."""


def _release(line: Line) -> Release:
    return line["exchange"], line["pseudonym"], line["release"]


def _ends(case: _Case) -> Iterator[Violation]:
    ends: dict[Pair, list[int]] = defaultdict(list)
    for one in case.found.participants:
        ends[one.exchange, one.pseudonym].append(one.state)
    released = {release[:2] for release in (*case.settled, *case.held) if release not in case.over}
    for pair, states in ends.items():
        over = [state for state in states if state in (FINALIZED, TERMINATED)]
        if not over:
            yield Violation(Kind.NO_END, f"{pair}: state {states}")
        if len(over) > 1 or (TERMINATED in over and pair in released):
            yield Violation(Kind.TWO_ENDS, f"{pair}: states {states}{', and a release' if pair in released else ''}")


def _releases(case: _Case) -> Iterator[Violation]:
    at_audit = [said for kind, said in case.told if kind == SETTLED]
    for where, releases in (("consent", case.settled), ("audit", at_audit), ("the marketer's end", {*case.held})):
        for pair, count in Counter(release[:2] for release in releases).items():
            if count > 1:
                yield Violation(Kind.TWO_RELEASES, f"{pair}: {count} at {where}")


def _lost(case: _Case) -> Iterator[Violation]:
    exchanges = {*case.found.exchanges}
    members = Counter(one.exchange for one in case.found.participants)
    customers = {line["request_id"]: line["customers"] for line in case.asked}
    for line in case.answered:
        request_id, exchange = line["request_id"], line["outcome"]
        if request_id not in customers:
            continue
        if exchange not in exchanges:
            yield Violation(Kind.LOST, f"{exchange} was answered to {request_id} and is not there")
        elif customers[request_id] not in (None, members[exchange]):
            yield Violation(Kind.LOST, f"{exchange} has {members[exchange]} of {customers[request_id]} customers")
    kept = {(one.exchange, one.pseudonym) for one in case.found.participants if one.acknowledged}
    for pair in {(line["exchange"], line["pseudonym"]) for line in case.acknowledged} - kept:
        yield Violation(Kind.LOST, f"{pair} was acknowledged, and broker forgot")
    for release in {*case.settled} - {*case.held} - case.overtaken:
        yield Violation(Kind.LOST, f"{release} was settled, and never reached the marketer")


def _escaped(case: _Case) -> Iterator[Violation]:
    for release, consent in case.consent_of.items():
        if consent in case.withdrawn and release not in case.withdrawn[consent]["releases"]:
            yield Violation(Kind.ESCAPED, f"{release} was settled, and the answer to its withdrawal doesn't name it")
    for line in case.delivered:
        withdrawal = case.withdrawn.get(_consent(case, line))
        if withdrawal is None:
            continue
        late = line["at"] - withdrawal["at"] - _standstill(case, withdrawal["at"], line["at"])
        if line["release"] not in withdrawal["releases"]:
            yield Violation(Kind.ESCAPED, f"{line['release']} reached the marketer, and the answer doesn't name it")
        elif late > WINDOW_S + SLACK_S:
            yield Violation(Kind.ESCAPED, f"{line['release']} reached the marketer {late:.2f} s after the answer")


def _consent(case: _Case, line: Line) -> str:
    """Under which consent a release was made: as settled, or else as the marketer was told."""
    detail = json.loads(bytes.fromhex(line["detail"]) or b"{}")
    return case.consent_of.get(line["release"]) or str(detail.get("consent", ""))


def _standstill(case: _Case, since: float, until: float) -> float:
    """How much of a span a broker stood still: it alone may have checked a release and not yet sent it."""
    spans = [
        min(until, float(stop["at"])) - max(since, float(stop["since"]))
        for stop in case.stopped
        if stop["process"].startswith("broker")
    ]
    return sum(span for span in spans if span > 0)


def _unequal(case: _Case) -> Iterator[Violation]:
    at_audit = {said for kind, said in case.told if kind == SETTLED}
    at_consent = {*case.settled} - case.overtaken
    at_broker = {_finished(one) for one in case.found.participants if one.state == FINALIZED}
    kept = {_finished(one) for one in case.found.participants if one.acknowledged}
    known = {_finished(one) for one in case.found.participants}
    for release in {*case.held} & case.over - known:  # whichever end it has: what was sent has its id there
        yield Violation(Kind.UNEQUAL, f"{release} was sent, and broker knows no such release")
    yield from _compared("consent", at_consent, "the marketer's end", {*case.held})
    yield from _compared("consent", at_consent, "audit", at_audit - case.overtaken)
    yield from _compared("consent", at_consent - case.over, "broker", at_broker - case.over)
    yield from _compared("broker", kept, "audit", {said for kind, said in case.told if kind == ACKNOWLEDGED})


def _finished(one: Participant) -> Release:
    return one.exchange, one.pseudonym, one.release


def _told(found: Databases, callers: AbstractSet[str]) -> Iterator[tuple[str, Release]]:
    """What audit can say of callers' releases, and has in the log."""
    for kind, detail in _said(found):
        if kind in (SETTLED, ACKNOWLEDGED) and detail["marketer"] in callers:
            yield kind, (detail["exchange"], detail["pseudonym"], detail.get("release", ""))


def _said(found: Databases) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What audit can say of what is in the log, by kind."""
    logged = {*found.commitments}
    for opening in found.history:
        if opening.commitment in logged:
            detail = json.loads(opening.detail)
            yield detail["kind"], detail


def _compared(one: str, first: set[Any], other: str, second: set[Any]) -> Iterator[Violation]:
    for where, missing in ((other, first - second), (one, second - first)):
        if missing:
            yield Violation(Kind.UNEQUAL, f"{len(missing)} missing at {where}, {min(missing)} among them")


def _anothers(case: _Case) -> Iterator[Violation]:
    """Releases that came with another's opening, or another's values: each customer lives in a town of their own."""
    towns: dict[str, set[str]] = defaultdict(set)
    who: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in case.delivered:
        opened, detail = line["opened"], json.loads(bytes.fromhex(line["detail"]))
        for said in filter(None, (detail, opened)):
            if _release(line) != _release(said):
                yield Violation(Kind.ANOTHERS, f"{_release(line)} came with what says {_release(said)}")
        if opened:
            towns[line["pseudonym"]].add(opened["town"])
            who[line["caller"], opened["town"]].add(line["pseudonym"])
    for found in (towns, who):
        for one, others in found.items():
            if len(others) > 1:
                yield Violation(Kind.ANOTHERS, f"{one} has {sorted(others)}")


def _leaves(case: _Case) -> Iterator[Violation]:
    commitments = {hashlib.sha256(one.salt + one.detail).digest(): one.release for one in case.found.settlements}
    told = {
        hashlib.sha256(bytes.fromhex(line["salt"] + line["detail"])).digest(): line["release"]
        for line in case.delivered
    }
    in_history = [opening.commitment for opening in case.found.history]
    for place, found in (("log", Counter(case.found.commitments)), ("history", Counter(in_history))):
        for commitment, release in {**told, **commitments}.items():
            if not found[commitment]:
                yield Violation(Kind.LEAF_MISSING, f"{release} is not in the {place}")
        for commitment, count in found.items():
            if count > 1:
                yield Violation(Kind.LEAF_TWICE, f"{commitment.hex()[:16]} is {count} times in the {place}")


def _log(case: _Case) -> Iterator[Violation]:
    """Whether the log, the commitments in it and what audit can say of them are of the same things."""
    for commitment in {*case.found.commitments} ^ {opening.commitment for opening in case.found.history}:
        yield Violation(Kind.LEAF_UNKNOWN, f"{commitment.hex()[:16]} is in the log or in a history alone")
    for opening in case.found.history:
        if not opening.is_true:
            yield Violation(Kind.LEAF_UNKNOWN, f"audit can't open {opening.commitment.hex()[:16]}")
    if {*case.found.entries} != {*range(len(case.found.entries))}:
        yield Violation(Kind.LEAF_MISSING, "the log has gaps")
    for place in case.found.places:
        if case.found.entries.get(place.entry) != b"\x01" + place.root:
            yield Violation(Kind.LEAF_MISSING, f"{place.commitment.hex()[:16]} is not in entry {place.entry}")
    for entry, count in Counter(case.found.entries.values()).items():
        if count > 1:
            yield Violation(Kind.LEAF_TWICE, f"entry {entry.hex()[:16]} is {count} times in the log")


def _outcomes(case: _Case) -> Iterator[Violation]:
    outcomes: dict[Pair, set[str]] = defaultdict(set)
    for line in case.answered:
        outcomes[line["caller"], line["request_id"]].add(line["outcome"])
    for request, answers in outcomes.items():
        if len(answers) > 1:
            yield Violation(Kind.TWO_OUTCOMES, f"{request} was answered {sorted(answers)}")
    asked = {(line["caller"], line["request_id"]) for line in case.asked}
    for request in asked & outcomes.keys():
        stored = case.found.answers.get(request, b"")
        if not all(outcome.encode() in stored for outcome in outcomes[request]):
            yield Violation(Kind.TWO_OUTCOMES, f"{request} was answered {sorted(outcomes[request])}, stored otherwise")
    many = Counter(exchange.partition("/exchanges/")[0] for exchange in case.found.exchanges)
    requests = Counter(caller for caller, _ in asked)
    for caller, count in many.items():
        if count > requests[caller]:
            yield Violation(Kind.TWO_OUTCOMES, f"{caller} asked {requests[caller]} times, and has {count} exchanges")


def _refusals(case: _Case) -> Iterator[Violation]:
    for line in case.failed:
        if line["code"] not in COMES_BACK:
            yield Violation(Kind.WRONG_REFUSAL, f"{line['caller']} was answered {line['code']}")


def _withdrawals(case: _Case) -> Iterator[Violation]:
    """Whether all have the same withdrawals, and each was told to its marketer, once."""
    about = {one.consent: one for one in case.found.consents}
    revoked = {one.consent for one in about.values() if one.state == REVOKED}
    at_audit: dict[str, list[str]] = {WITHDRAWN: [], NOTIFIED: []}
    for kind, detail in _said(case.found):
        if kind in at_audit and detail["consent"] in about and detail.get("notice", TOLD) == TOLD:
            at_audit[kind].append(detail["consent"])
    told = {line["consent"] for line in case.notified}
    yield from _compared("consent", revoked, "whoever withdrew", case.withdrawn.keys() & about.keys())
    yield from _compared("consent", revoked, "the marketer's end", told)
    for kind, consents in at_audit.items():
        yield from _compared("consent", revoked, f"audit ({kind})", {*consents})
    notices = [consent for _, consent in {(line["delivery"], line["consent"]) for line in case.notified}]
    for where, consents in (("the marketer's end", notices), *at_audit.items()):
        for consent, count in Counter(consents).items():
            if count > 1:
                yield Violation(Kind.TOLD_TWICE, f"{consent}: {count} at {where}")
    for line in case.notified:
        if line["consent"] in about and line["pseudonym"] != about[line["consent"]].pseudonym:
            yield Violation(Kind.ANOTHERS, f"{line['consent']} came with {line['pseudonym']}")


# --- The databases ---------------------------------------------------------------------------------------------------------


async def read_databases(audit_key: Path, dsns: Iterable[str], history: Sequence[Line]) -> Databases:
    """Read what a history's marketers left in databases, which are known by their tables."""
    callers = sorted({line["caller"] for line in history if "caller" in line})
    parts: dict[str, Any] = {}
    for dsn in dsns:
        connection = await asyncpg.connect(dsn)
        try:
            async with connection.transaction(isolation="repeatable_read"):  # all as of one moment
                parts |= await _read(connection, callers, audit_key)
        finally:
            await connection.close()
    return Databases(**parts)


async def _read(connection: asyncpg.Connection, callers: Sequence[str], audit_key: Path) -> dict[str, Any]:
    if await _has(connection, "settlements"):
        return await _consent_rows(connection, callers)
    if await _has(connection, "participants"):
        return await _broker_rows(connection, callers)
    if await _has(connection, "log_entries"):
        return await _audit_rows(connection, audit_key)
    raise LookupError("a database that is neither consent's nor broker's nor audit's")


async def _has(connection: asyncpg.Connection, table: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1)", table))


async def _consent_rows(connection: asyncpg.Connection, callers: Sequence[str]) -> dict[str, Any]:
    rows = await connection.fetch(
        "SELECT s.exchange, c.pseudonym, s.release_id, 'consents/' || s.consent_id, s.salt, s.detail FROM settlements AS s "
        "JOIN consents AS c USING (customer, consent_id) WHERE c.marketer = ANY($1)",
        callers,
    )
    agreed = await connection.fetch(
        "SELECT 'consents/' || consent_id, pseudonym, state FROM consents WHERE marketer = ANY($1) AND agreed_at IS NOT NULL",
        callers,
    )
    return {"settlements": [Settlement(*row) for row in rows], "consents": [Consent(*row) for row in agreed]}


async def _broker_rows(connection: asyncpg.Connection, callers: Sequence[str]) -> dict[str, Any]:
    participants = await connection.fetch(
        "SELECT marketer || '/exchanges/' || exchange_id, pseudonym, state, acknowledged, release_id FROM participants "
        "WHERE marketer = ANY($1)",
        callers,
    )
    exchanges = await connection.fetch(
        "SELECT marketer || '/exchanges/' || exchange_id FROM exchanges WHERE marketer = ANY($1)", callers
    )
    answers = await connection.fetch(
        "SELECT caller, request_id, response FROM requests WHERE caller = ANY($1)", callers
    )
    return {
        "participants": [Participant(*row) for row in participants],
        "exchanges": [row[0] for row in exchanges],
        "answers": {(caller, request_id): response or b"" for caller, request_id, response in answers},
    }


async def _audit_rows(connection: asyncpg.Connection, audit_key: Path) -> dict[str, Any]:
    keys = await connection.fetch("SELECT subject, wrapped FROM subject_keys")
    history = await connection.fetch("SELECT subject, commitment, sealed FROM history")
    return {
        "places": [
            Place(*row)
            for row in await connection.fetch("SELECT commitment, log_index, inner_index, path FROM log_commitments")
        ],
        "history": [*open_history(audit_key, keys, history)],
        "entries": dict(map(tuple, await connection.fetch("SELECT log_index, entry FROM log_entries"))),
    }


def read_history(path: Path) -> list[Line]:
    """The lines of a history's file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def check(history: Path, audit_key: Path, *dsns: str) -> list[Violation]:
    """Check a history's file against databases, audit's opened with its master key."""
    lines = read_history(history)
    return violations(lines, await read_databases(audit_key, dsns, lines))


def main() -> None:
    """Say each violation; the exit code says whether there was one."""
    if len(sys.argv) < 4:
        sys.exit("usage: python -m tests.support.checker HISTORY AUDIT_KEY DSN...")
    found = asyncio.run(check(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
    for violation in found:
        print(violation)
    print(f"{len(found)} violations")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
