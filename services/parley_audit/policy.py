"""What a verifier is told to believe about this log."""

from parley_crypto.tlog.note import VerifierKey
from parley_crypto.tlog.policy import Policy, seal_policy


def policy_text(vkey: VerifierKey) -> bytes:
    """Write the sealed policy (c2sp.org/tlog-policy) that trusts this log's key and asks for no witness, as UTF-8."""
    return seal_policy(Policy(logs=(vkey,)).to_bytes())
