"""Checks a receipt offline, from four files, and says in plain words what is wrong with one that doesn't hold."""

from pathlib import Path

from parley_crypto.tlog import errors
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.tlog.receipt import Receipt, verify_receipt

_HELP: dict[type[errors.TlogInvalid], str] = {
    errors.PolicyInvalid: (
        "The policy file says which log and which witnesses you believe. It ends in a line `# sha256 ...` that fixes "
        "every byte before it. Fetch it again from where you got it, over a channel you trust; don't edit it."
    ),
    errors.PolicyUnmet: (
        "The proof's checkpoint needs the signature of a log that your policy names, cosignatures of as many of its "
        "witnesses as it asks for, and no signature of anyone else. Check that proof and policy belong to one log, and "
        "fetch the proof again."
    ),
    errors.NoteInvalid: (
        "The signed checkpoint at the end of the proof file is damaged, or a signature on it is false. Fetch the proof "
        "again. If it still fails, keep the file: a false signature is evidence."
    ),
    errors.CheckpointInvalid: (
        "The signed text at the end of the proof file is not a checkpoint of three lines. Fetch the proof again."
    ),
    errors.ProofInvalid: (
        "The proof file doesn't show that the log holds this entry. Check that proof and entry belong together, and "
        "fetch the proof again. If it still fails, keep the files: a log that signs a tree without your entry is at fault."
    ),
    errors.EntryInvalid: "The entry file is not 33 bytes of version 1. Fetch the entry again.",
    errors.OpeningInvalid: (
        "The opening file was changed, or opens another entry. It is exact to the byte: an editor that adds a newline "
        "at its end breaks it. Take the file as it was first delivered."
    ),
}


class ReceiptInvalid(Exception):
    """The files don't prove what they claim, or can't be read. The message says which part fails, in one sentence."""

    def __init__(self, message: str, help_text: str) -> None:
        super().__init__(message)
        self._help = help_text

    def diagnostics(self) -> str:
        """Explain to a person what this means and what to do next."""
        return self._help


def verify_files(policy: Path, proof: Path, entry: Path, opening: Path) -> Receipt:
    """
    Check a receipt from its files; needs no network and no server.

    ``policy`` must be sealed, ``entry`` is the log entry's exact bytes. Changing any one byte of any of them is
    noticed. Raises ReceiptInvalid.
    """
    contents = [_read(path) for path in (policy, proof, entry, opening)]
    try:
        return verify_receipt(parse_sealed_policy(contents[0]), *contents[1:])
    except errors.TlogInvalid as error:
        raise ReceiptInvalid(f"Not a valid receipt: {error}.", _help(error)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReceiptInvalid(f"Can't read {path}: {error.strerror}.", "Check the path and its permissions.") from error


def _help(error: errors.TlogInvalid) -> str:
    return next(text for kind, text in _HELP.items() if isinstance(error, kind))
