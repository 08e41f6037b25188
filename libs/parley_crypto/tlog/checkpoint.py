"""Checkpoints: the signed head of a log (c2sp.org/tlog-checkpoint v1), without extension lines."""

from dataclasses import dataclass

from parley_crypto.tlog.encoding import MAX_SIZE, from_base64_sized, from_decimal, to_base64
from parley_crypto.tlog.errors import CheckpointInvalid
from parley_crypto.tlog.merkle import HASH_SIZE


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """
    A log's name, how many entries it has, and the 32-byte root over them.

    Building one raises CheckpointInvalid for an origin, size or root that no checkpoint has.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or any(each < " " for each in self.origin):
            raise CheckpointInvalid("a checkpoint's origin is one line that is not empty")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise CheckpointInvalid("a checkpoint has a size below 2**63 and a root of 32 bytes")

    def text(self) -> str:
        """Write the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text as a checkpoint; extension lines, which no monitor could audit, are refused."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise CheckpointInvalid("a checkpoint has three lines")
    try:
        size, root = from_decimal(lines[1]), from_base64_sized(lines[2], HASH_SIZE)
    except ValueError as error:
        raise CheckpointInvalid("a checkpoint's size or root is malformed") from error
    return Checkpoint(lines[0], size, root)
