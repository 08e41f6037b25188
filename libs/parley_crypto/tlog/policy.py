"""
Trust policies (c2sp.org/tlog-policy): which logs are believed, and which witnesses must have seen their checkpoint.

Two readers. :func:`parse_policy` takes any policy the specification allows. :func:`parse_sealed_policy` takes only what
:func:`seal_policy` wrote: the same text with its own SHA-256 in a comment at the end, so that standard tools still read
it. A signature can't stand in for that sum: a threshold of 2 turned to 1, or one witness's name turned into another's,
is a sound policy that the same checkpoint meets. The sum finds accidents and slips; who replaces the whole file
replaces what its owner believes, and no format can prevent that.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from parley_crypto.tlog.checkpoint import Checkpoint, parse_checkpoint
from parley_crypto.tlog.cosignature import CosignatureVerifier
from parley_crypto.tlog.encoding import from_decimal
from parley_crypto.tlog.errors import KeyInvalid, PolicyInvalid, PolicyUnmet
from parley_crypto.tlog.note import Ed25519Verifier, KeyType, Opened, Verifier, VerifierKey, open_note, parse_vkey

NONE = "none"

_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_NAME = re.compile(r"[^\x00-\x20\x7f]+")
_SPACES = re.compile(r"[ \t]+")
_SEAL = "# sha256 "


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness under the name that the policy alone gives it."""

    name: str
    key: VerifierKey


@dataclass(frozen=True, slots=True)
class Group:
    """A group is met when ``threshold`` of its members (witnesses, or groups defined before it) are."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """
    What a verifier believes. Groups stand in order of definition; ``quorum`` names a witness, a group, or ``none``.

    Building one raises PolicyInvalid unless all names and keys fit together as the specification says.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NONE

    def __post_init__(self) -> None:
        _check_keys(self.logs, self.witnesses)
        _check_names(self)

    def check(self, note: bytes) -> Checkpoint:
        """
        Open a checkpoint that a known log signed under its own name and the quorum of witnesses cosigned.

        Raises NoteInvalid, CheckpointInvalid or PolicyUnmet.
        """
        return self._judge(open_note(note, self._verifiers()))

    def check_every_line(self, note: bytes) -> Checkpoint:
        """
        As :meth:`check`, but refusing a signature line of a key the policy doesn't name.

        Such a line proves nothing, so a change in it could not be noticed.
        """
        opened = open_note(note, self._verifiers())
        if opened.ignored:
            raise PolicyUnmet("a signature is by a key that the policy doesn't name")
        return self._judge(opened)

    def to_bytes(self) -> bytes:
        """Write the policy in the specification's syntax, one definition a line, not sealed."""
        lines = [
            *(f"log {key}" for key in self.logs),
            *(f"witness {witness.name} {witness.key}" for witness in self.witnesses),
            *(f"group {group.name} {group.threshold} {' '.join(group.members)}" for group in self.groups),
            f"quorum {self.quorum}",
        ]
        return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")

    def _verifiers(self) -> list[Verifier]:
        logs = [Ed25519Verifier(key) for key in self.logs]
        return [*logs, *(CosignatureVerifier(witness.key) for witness in self.witnesses)]

    def _judge(self, opened: Opened) -> Checkpoint:
        checkpoint = parse_checkpoint(opened.text)
        if not any(key in self.logs and key.name == checkpoint.origin for key in opened.signed_by):
            raise PolicyUnmet("no log of the policy signed the checkpoint under its own name")
        if not self._is_quorum({witness.name for witness in self.witnesses if witness.key in opened.signed_by}):
            raise PolicyUnmet("too few witnesses of the policy cosigned the checkpoint")
        return checkpoint

    def _is_quorum(self, met: set[str]) -> bool:
        for group in self.groups:  # in order: members are settled before the groups that count them
            if len(met.intersection(group.members)) >= group.threshold:
                met.add(group.name)
        return self.quorum == NONE or self.quorum in met


def parse_policy(raw: bytes) -> Policy:
    """Read any policy file that the specification allows; URLs are passed over. Raises PolicyInvalid."""
    if _CONTROL.search(raw) or not raw.endswith(b"\n"):
        raise PolicyInvalid("a policy is lines of text, each ending in a newline")
    # Bytes that are not UTF-8 are allowed in names and stand for themselves.
    lines = raw.decode(errors="surrogateescape")[:-1].split("\n")
    parser = _Parser()
    for line in lines:
        words = [word for word in _SPACES.split(line) if word]
        if words and not words[0].startswith("#"):
            parser.define(words)
    return parser.policy()


def seal_policy(raw: bytes) -> bytes:
    """Add the closing comment that fixes every byte of a policy. Raises PolicyInvalid for what is none."""
    parse_policy(raw)
    return _sealed(raw)


def parse_sealed_policy(raw: bytes) -> Policy:
    """Read a policy that :func:`seal_policy` sealed, refusing it if any byte has changed. Raises PolicyInvalid."""
    body = raw[: raw.rfind(b"\n", 0, -1) + 1]
    policy = parse_policy(body)
    if _sealed(body) != raw:
        raise PolicyInvalid("the policy is not sealed, or was changed since")
    return policy


def _sealed(body: bytes) -> bytes:
    return body + f"{_SEAL}{sha256(body).hexdigest()}\n".encode()


class _Parser:
    """Gathers a policy line by line; names must be defined before they are used, and quorum once."""

    def __init__(self) -> None:
        self._logs: list[VerifierKey] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._defined: set[str] = set()
        self._quorum: str | None = None

    def define(self, words: list[str]) -> None:
        """Take one line that is neither empty nor a comment."""
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self._logs.append(_parse_vkey(vkey))
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                self._witnesses.append(Witness(name, _parse_vkey(vkey)))
                self._defined.add(name)
            case ["group", name, threshold, *members] if members and self._defined.issuperset(members):
                self._groups.append(Group(name, _parse_threshold(threshold, len(members)), tuple(members)))
                self._defined.add(name)
            case ["quorum", name] if self._quorum is None and name in {*self._defined, NONE}:
                self._quorum = name
            case _:
                raise PolicyInvalid("a line of the policy is malformed, or uses a name before its definition")

    def policy(self) -> Policy:
        """Put the lines together."""
        if self._quorum is None:
            raise PolicyInvalid("a policy has one quorum line")
        return Policy(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._quorum)


def _parse_vkey(text: str) -> VerifierKey:
    try:
        return parse_vkey(text)
    except KeyInvalid as error:
        raise PolicyInvalid(f"a key of the policy can't be used: {error}") from error


def _parse_threshold(text: str, members: int) -> int:
    if text in {"any", "all"}:
        return 1 if text == "any" else members
    try:
        return from_decimal(text)
    except ValueError as error:
        raise PolicyInvalid("a group's threshold is a number, any or all") from error


def _check_keys(logs: tuple[VerifierKey, ...], witnesses: tuple[Witness, ...]) -> None:
    if any(key.type is not KeyType.ED25519 for key in logs):
        raise PolicyInvalid("a log's key is of type 0x01")
    if any(witness.key.type is not KeyType.COSIGNATURE for witness in witnesses):
        raise PolicyInvalid("a witness's key is of type 0x04")
    _refuse_repeats([*(key.public for key in logs), *(witness.key.public for witness in witnesses)], "a public key")


def _check_names(policy: Policy) -> None:
    defined = [NONE, *(witness.name for witness in policy.witnesses)]
    for group in policy.groups:
        if not set(defined[1:]).issuperset(group.members) or not 1 <= group.threshold <= len(group.members):
            raise PolicyInvalid("a group counts members defined before it, and no more than it has")
        defined.append(group.name)
    if not all(_NAME.fullmatch(name) for name in defined):
        raise PolicyInvalid("a name of the policy is empty, or holds a space")
    _refuse_repeats(defined, "a name")
    _refuse_repeats([member for group in policy.groups for member in group.members], "a member")
    if policy.quorum not in defined:
        raise PolicyInvalid("the quorum is a name that the policy defines")


def _refuse_repeats(items: Iterable[str | bytes], what: str) -> None:
    seen = list(items)
    if len(set(seen)) != len(seen):
        raise PolicyInvalid(f"{what} of the policy stands twice")
