"""What can be wrong with a file or a proof. Messages name the part that is wrong and never quote what it holds."""


class TlogInvalid(ValueError):
    """Something that claims to come from a transparency log doesn't hold."""


class ProofInvalid(TlogInvalid):
    """A Merkle proof, or the file that carries it, doesn't lead to the root."""


class NoteInvalid(TlogInvalid):
    """A signed note is malformed, or no trusted key signed it, or a trusted key's signature fails."""


class KeyInvalid(TlogInvalid):
    """A key is malformed, of an unsupported type, of small order, or not canonically encoded."""


class CheckpointInvalid(TlogInvalid):
    """A note's text is not a checkpoint."""


class TileInvalid(TlogInvalid):
    """A tile or an entry bundle is malformed."""


class PolicyInvalid(TlogInvalid):
    """A trust policy is malformed, or is not the text that was sealed."""


class PolicyUnmet(TlogInvalid):
    """A checkpoint lacks a signature that the trust policy asks for."""


class EntryInvalid(TlogInvalid):
    """A log entry is not one that Parley writes."""


class OpeningInvalid(TlogInvalid):
    """An opening is malformed, or doesn't open the entry."""
