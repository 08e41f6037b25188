"""The newest signed checkpoint, kept where no restore of the database reaches it."""

from dataclasses import dataclass
from pathlib import Path

from parley_audit.faults import LogRefused
from parley_crypto.tlog.checkpoint import Checkpoint, parse_checkpoint
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.note import Ed25519Verifier, VerifierKey, open_note
from parley_kit.files import replace_durably

_UNREADABLE = (
    "The file of the newest published checkpoint can't be read, or is not this log's: put the newest "
    "checkpoint there that anybody holds."
)


@dataclass(frozen=True)
class PublishedFile:
    """A file with one signed note of the log whose key is ``key``."""

    path: Path
    key: VerifierKey

    def read(self) -> bytes | None:
        """The note, whatever it says; None if there is no file. Raises LogRefused where it can't be read."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogRefused(_UNREADABLE) from error

    def checkpoint_in(self, note: bytes) -> Checkpoint:
        """The checkpoint in a note. Raises LogRefused for one that isn't this log's."""
        try:
            return parse_checkpoint(open_note(note, [Ed25519Verifier(self.key)]).text)
        except TlogInvalid as error:
            raise LogRefused(_UNREADABLE) from error

    def write(self, note: bytes) -> None:
        """
        Replace the checkpoint: whatever happens, the file holds the old one or the new one, on disk.

        Raises LogRefused where it can't be written.
        """
        try:
            replace_durably(self.path, note)
        except OSError as error:
            raise LogRefused(
                "The file of the newest published checkpoint can't be written: see to its disk."
            ) from error
