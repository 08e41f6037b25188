"""
The transparency log's formats and verifiers: pure, synchronous, byte for byte the C2SP specifications.

Trees are RFC 6962 over SHA-256; notes, checkpoints, cosignatures, tiles, proofs and policies are those of c2sp.org
(signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof, tlog-policy). Only ``receipt`` is Parley's own:
what a log entry holds, and how a party opens it.
"""
