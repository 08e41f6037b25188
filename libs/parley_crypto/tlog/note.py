"""Signed notes and their keys (c2sp.org/signed-note v1): a text, an empty line, and one line per signature."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Protocol

from parley_crypto.tlog import ed25519
from parley_crypto.tlog.encoding import from_base64, to_base64
from parley_crypto.tlog.errors import KeyInvalid, NoteInvalid

MAX_SIGNATURES = 64  # the specification asks for at least 16
KEY_ID_SIZE = 4

_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_DASH = "\N{EM DASH} "
_PRIVATE = "PRIVATE+KEY+"


class KeyType(IntEnum):
    """The signature types Parley makes and verifies, by their byte in a key."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name: a *vkey*. Building one raises KeyInvalid for a bad name or an unsound key."""

    name: str
    type: KeyType
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        ed25519.check_public_key(self.public)

    @property
    def id(self) -> bytes:
        """The 4 bytes that, with the name, pick the key for a signature line."""
        return sha256(f"{self.name}\n".encode() + bytes([self.type]) + self.public).digest()[:KEY_ID_SIZE]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{to_base64(bytes([self.type]) + self.public)}"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A named Ed25519 seed of 32 bytes, in the text form the Go tools read and write."""

    name: str
    seed: bytes = field(repr=False)

    def vkey(self, key_type: KeyType = KeyType.ED25519) -> VerifierKey:
        """Derive the public half, for the use that ``key_type`` names."""
        return VerifierKey(self.name, key_type, ed25519.public_key(self.seed))

    def secret_text(self) -> str:
        """Write the key as ``PRIVATE+KEY+name+id+base64(01 seed)``. Whoever holds this text can sign."""
        return f"{_PRIVATE}{self.name}+{self.vkey().id.hex()}+{to_base64(bytes([KeyType.ED25519]) + self.seed)}"


class Signer(Protocol):
    """Something that adds its signature line to a note."""

    @property
    def key(self) -> VerifierKey:
        """The key that the line will name."""

    def sign(self, text: bytes) -> bytes:
        """Sign the note's text, giving what follows the key id in the line."""


class Verifier(Protocol):
    """A trusted key and the way its signatures are checked."""

    @property
    def key(self) -> VerifierKey:
        """The key that is trusted."""

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Tell whether the signature, without its key id, is the key's over the note's text."""


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """Signs notes with a plain Ed25519 signature (type 0x01)."""

    private: PrivateKey
    key: VerifierKey = field(init=False, repr=False, compare=False)
    """The key that the line will name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.private.vkey())  # once: each note asks for it twice

    def sign(self, text: bytes) -> bytes:
        """Sign the text itself: 64 bytes."""
        return ed25519.sign(self.private.seed, text)


@dataclass(frozen=True, slots=True)
class Ed25519Verifier:
    """Checks plain Ed25519 signatures (type 0x01)."""

    key: VerifierKey

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Tell whether the 64 bytes are the key's signature over the text."""
        return ed25519.verifies(self.key.public, text, signature)


@dataclass(frozen=True, slots=True)
class Opened:
    """A note whose known signatures all verify. ``ignored`` counts the lines of keys nobody here knows."""

    text: str
    signed_by: tuple[VerifierKey, ...]
    ignored: int


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature as it stands in a note: the key's name and id, and the bytes that key made."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.signature)}\n"


def parse_vkey(text: str) -> VerifierKey:
    """Read a vkey, requiring its one canonical spelling. Raises KeyInvalid."""
    name, key_type, material = _parse_key(text)
    key = VerifierKey(name, key_type, material)
    if str(key) != text:
        raise KeyInvalid("the key id doesn't fit the key")
    return key


def parse_private_key(text: str) -> PrivateKey:
    """Read what :meth:`PrivateKey.secret_text` writes. Raises KeyInvalid."""
    if not text.startswith(_PRIVATE):
        raise KeyInvalid("not a private key")
    name, _, material = _parse_key(text.removeprefix(_PRIVATE))
    key = PrivateKey(name, material)
    if key.secret_text() != text:
        raise KeyInvalid("the key id doesn't fit the key")
    return key


def check_name(name: str) -> None:
    """Refuse a key name that is empty, or holds a space of any script, a plus or a control. Raises KeyInvalid."""
    if not name or "+" in name or any(each.isspace() or each < " " for each in name) or not _is_utf8(name):
        raise KeyInvalid("not a key name")


def sign_note(text: str, signers: Sequence[Signer]) -> bytes:
    """Sign a text that ends in a newline. Raises NoteInvalid for a text that no note can carry."""
    _check_text(text)
    if not 1 <= len(signers) <= MAX_SIGNATURES:
        raise NoteInvalid("a note needs a signer, and not too many")
    return "".join([text, "\n", *(str(signature_line(text, signer)) for signer in signers)]).encode()


def signature_line(text: str, signer: Signer) -> SignatureLine:
    """Make one signature over a note's text, as a witness sends it back: append ``str`` of it to the note."""
    key = signer.key
    return SignatureLine(key.name, key.id, signer.sign(text.encode()))


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> Opened:
    """
    Verify a note and give its text.

    Lines of unknown keys are ignored. Raises NoteInvalid if the note is malformed, if no known key signed it, if a
    known key's signature fails, or if a known key signed twice (which of the two would count?).
    """
    text, lines = split_note(note)
    known = _by_name_and_id(verifiers)
    signed_by: list[VerifierKey] = []
    for line in lines:
        if verifier := known.get((line.name, line.key_id)):
            _check_line(verifier, text, line, signed_by)
            signed_by.append(verifier.key)
    if not signed_by:
        raise NoteInvalid("no known key signed the note")
    return Opened(text, tuple(signed_by), len(lines) - len(signed_by))


def split_note(note: bytes) -> tuple[str, list[SignatureLine]]:
    """Take a note apart into its text and its signature lines, *unverified*. Raises NoteInvalid."""
    try:
        decoded = note.decode()
    except UnicodeDecodeError as error:
        raise NoteInvalid("a note is UTF-8") from error
    text, gap, tail = decoded.rpartition("\n\n")  # the text may hold empty lines: the last one counts
    text += "\n"
    _check_text(text)
    if not gap or not tail.endswith("\n"):
        raise NoteInvalid("a note is a text, an empty line and signature lines")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteInvalid("too many signatures")
    return text, [_parse_line(line) for line in lines]


def _check_line(verifier: Verifier, text: str, line: SignatureLine, signed_by: Sequence[VerifierKey]) -> None:
    if verifier.key in signed_by:
        raise NoteInvalid("a known key signed twice")
    if not verifier.verifies(text.encode(), line.signature):
        raise NoteInvalid("a known key's signature doesn't verify")


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _FORBIDDEN.search(text) or not _is_utf8(text):
        raise NoteInvalid("a note's text ends in a newline and holds no other control character")


def _parse_line(line: str) -> SignatureLine:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        check_name(name)
        raw = from_base64(encoded)
    except ValueError as error:
        raise NoteInvalid("a signature line is malformed") from error
    if not line.startswith(_DASH) or len(raw) <= KEY_ID_SIZE:
        raise NoteInvalid("a signature line is malformed")
    return SignatureLine(name, raw[:KEY_ID_SIZE], raw[KEY_ID_SIZE:])


def _by_name_and_id(verifiers: Iterable[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.key.name, verifier.key.id), verifier).key != verifier.key:
            raise NoteInvalid("two known keys share one name and id")
    return known


def _parse_key(text: str) -> tuple[str, KeyType, bytes]:
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")  # base64 may hold a plus itself
    try:
        raw = from_base64(encoded)
    except ValueError as error:
        raise KeyInvalid("a key is malformed") from error
    if not _KEY_ID.fullmatch(key_id) or not raw:
        raise KeyInvalid("a key is malformed")
    if raw[0] not in set(KeyType):
        raise KeyInvalid(f"keys of type 0x{raw[0]:02x} are not supported")
    return name, KeyType(raw[0]), raw[1:]


def _is_utf8(text: str) -> bool:
    # Only a lone surrogate, which stands for an undecodable byte, can't be encoded.
    return not any("\ud800" <= each <= "\udfff" for each in text)
