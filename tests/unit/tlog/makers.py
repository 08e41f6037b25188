"""Small logs, keys and receipts to test with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from parley_crypto.tlog import merkle, receipt
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.cosignature import Cosigner
from parley_crypto.tlog.errors import ProofInvalid
from parley_crypto.tlog.note import Ed25519Signer, KeyType, PrivateKey, Signer, sign_note
from parley_crypto.tlog.policy import Group, Policy, Witness, seal_policy
from parley_crypto.tlog.proof import TlogProof

LOG = PrivateKey("log.example/2026", sha256(b"log").digest())
WITNESSES = [PrivateKey(f"witness{n}.example", sha256(b"witness%d" % n).digest()) for n in (1, 2, 3)]
NOW = 1_790_000_000


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(n.to_bytes(4, "big")) for n in range(count)]


def slow_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962's definition, word for word."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else sha256(b"").digest()
    split = max(1 << k for k in range(64) if 1 << k < len(hashes))
    return sha256(b"\x01" + slow_root(hashes[:split]) + slow_root(hashes[split:])).digest()


def flips(raw: bytes) -> Iterable[bytes]:
    """Every copy with one bit turned."""
    for at in range(len(raw)):
        for bit in range(8):
            yield raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]


def cosigner(private: PrivateKey) -> Cosigner:
    return Cosigner(private, lambda: NOW)


def witness(name: str, private: PrivateKey) -> Witness:
    return Witness(name, private.vkey(KeyType.COSIGNATURE))


def policy(threshold: int = 1) -> Policy:
    """One log; ``threshold`` of three witnesses."""
    witnesses = tuple(witness(f"w{n}", private) for n, private in enumerate(WITNESSES, 1))
    return Policy((LOG.vkey(),), witnesses, (Group("g1", threshold, ("w1", "w2", "w3")),), "g1")


def signed(hashes: Sequence[bytes], cosigners: Sequence[PrivateKey] = (), origin: str = LOG.name) -> bytes:
    signers: list[Signer] = [Ed25519Signer(LOG), *map(cosigner, cosigners)]
    return sign_note(Checkpoint(origin, len(hashes), merkle.root(hashes)).text(), signers)


def proof_of(hashes: Sequence[bytes], index: int, note: bytes) -> TlogProof:
    return TlogProof(index, tuple(merkle.inclusion_proof(hashes, index)), note)


@dataclass(frozen=True)
class Files:
    policy: bytes
    proof: bytes
    entry: bytes
    opening: bytes


def small_entry(salted: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, list[receipt.Opening]]:
    """An entry whose tree is as small as can be, with its openings in order: those of every size must hold."""
    inner = [merkle.leaf_hash(receipt.commit(*each)) for each in salted]
    paths = [merkle.inclusion_proof(inner, n) for n in range(len(inner))]
    entry = bytes([receipt.VERSION]) + slow_root(inner)
    sizes = [
        next(size for size in range(n + 1, len(inner) + 1) if _fits(inner, n, size, path, entry))
        for n, path in enumerate(paths)
    ]
    return entry, [
        receipt.Opening(salt, detail, n, size, tuple(path))
        for n, ((salt, detail), size, path) in enumerate(zip(salted, sizes, paths, strict=True))
    ]


def _fits(inner: Sequence[bytes], index: int, size: int, path: Sequence[bytes], entry: bytes) -> bool:
    try:
        merkle.verify_inclusion(inner[index], index, size, path, entry[1:])
    except ProofInvalid:
        return False
    return True


def receipt_files(batch: int = 3, member: int = 0, log_size: int = 13, index: int = 4) -> Files:
    """A receipt that holds: one of a batch, in a log of other entries, cosigned by more witnesses than needed."""
    details = [{"kind": "release", "marketer": f"m{n}", "count": n, "note": "Grüße"} for n in range(batch)]
    salted = [(sha256(b"salt%d" % n).digest(), receipt.canonical(detail)) for n, detail in enumerate(details)]
    entry, openings = small_entry(salted)
    hashes = leaves(log_size)
    hashes[index] = merkle.leaf_hash(entry)
    return Files(
        policy=seal_policy(policy(threshold=2).to_bytes()),
        proof=proof_of(hashes, index, signed(hashes, WITNESSES)).to_bytes(),
        entry=entry,
        opening=openings[member].to_bytes(),
    )
