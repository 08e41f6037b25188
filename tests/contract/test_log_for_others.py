"""Our log before tools that aren't ours: what is honest passes, and each of the known frauds is caught."""

import re
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import witness_log
from cryptography.exceptions import InvalidSignature

from parley.audit.v1 import audit_pb2 as auditpb
from parley_bus.bus import Bus
from parley_client.receipts import FILES
from parley_crypto.keyfiles import read_key
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.note import Ed25519Signer, KeyType, PrivateKey, sign_note
from parley_crypto.tlog.policy import Policy, Witness, seal_policy
from parley_crypto.tlog.receipt import Opening
from tests.support.audit import ORIGIN, Audit, Secrets, Told, ask, audit_service, make_streams, migrate_audit
from tests.support.databases import Databases
from tests.support.documents import ROOT, blocks
from tests.support.others import (
    PROGRAM,
    Falsified,
    Front,
    Get,
    Said,
    Tree,
    build_program,
    flipped,
    go,
    paths_of,
    run,
    serving,
)
from tests.support.servers import Pair

DOCUMENT = ROOT / "docs/verify.md"
GROWTH = (1, 255, 44, 1100)  # full and partial tiles, two levels of them; then one entry that releases share
RELEASES = 20
MESSAGES = {
    "signature": "no log that you trust signed this checkpoint",
    "tile": "downloaded inconsistent tile",
    "entry": "is not the one in the tree",
    "history": "the log signed two histories",
    "shrunk": "it has lost some, or this is an old copy of it",
    "opening": "does not open the entry",
}
Judge = Callable[[Any], Awaitable[str]]
JudgeReceipt = Callable[[Path, Path], Awaitable[bool]]
PARTS = (
    ("policy.txt", rb"^log "),
    ("policy.txt", rb"\n# sha256 "),
    ("receipt.tlog-proof", rb"^"),
    ("receipt.tlog-proof", rb"index "),
    ("receipt.tlog-proof", rb"index \d+\n"),  # the first hash of the path
    ("receipt.tlog-proof", rb"\n\n"),  # the log's name
    ("receipt.tlog-proof", rb"\n\n[^\n]+\n"),  # the size
    ("receipt.tlog-proof", rb"\n\n[^\n]+\n\d+\n"),  # the root
    ("receipt.tlog-proof", rb"\xe2\x80\x94 [^ ]+ .{20}"),  # the signature
    ("entry.bin", rb"^"),
    ("entry.bin", rb"(?s)^.{17}"),
    ("opening.json", rb'"detail":\{"'),
    ("opening.json", rb'"index":'),
    ("opening.json", rb'"proof":\["'),
    ("opening.json", rb'"salt":"'),
    ("opening.json", rb'"version":'),
)


@dataclass(frozen=True)
class Log:
    """A log that grew, the checkpoint after each time it did, and events in it with what opens them."""

    audit: Audit
    policy: bytes
    checkpoints: Sequence[bytes]
    told: Sequence[Told]

    @property
    def app(self) -> Any:
        return self.audit.service.http

    @property
    def sizes(self) -> list[int]:
        return [size_of(each) for each in self.checkpoints]

    def as_of(self, checkpoint: bytes) -> Falsified:
        """The log's application as it answered when that checkpoint was new."""
        return Falsified(self.app, {"/checkpoint": checkpoint})

    def with_file(self, path: str, raw: bytes) -> Falsified:
        """The log's application with another file in one place."""
        return Falsified(self.app, {path: raw})

    async def tree(self, checkpoint: bytes) -> Tree:
        return await Tree.fetch(reader(self.app), size_of(checkpoint))

    async def proof(self, told: Told) -> auditpb.GetProofResponse:
        request = auditpb.GetProofRequest(commitment=told.opening.commitment)
        return await self.audit.stub.GetProof(request, timeout=10)

    @property
    def sharing(self) -> Told:
        """A release whose entry holds others too."""
        return self.told[-1]

    async def receipt(self, told: Told, folder: Path) -> Path:
        """Save a receipt as the SDK does: as four files."""
        proof = await self.proof(told)
        way = Opening(told.opening.salt, told.opening.detail, proof.index, proof.size, tuple(proof.path))
        return saved(folder, (self.policy, proof.proof, proof.entry, way.to_bytes()))


@dataclass(frozen=True)
class Stranger:
    """Somebody with the Go program, a folder with the policy that they trust, and an address where a log answers."""

    program: Path
    folder: Path
    front: Front
    address: str

    @property
    def saved(self) -> Path:
        return self.folder / "checkpoint.txt"

    async def check(self, app: Any, *arguments: str | Path) -> Said:
        self.front.app = app
        return await self.run(*arguments, self.address)

    async def follow(self, app: Any) -> Said:
        """Check a log, and that it extends what was seen of it before."""
        return await self.check(app, "-saved", self.saved)

    async def run(self, *arguments: str | Path) -> Said:
        return await run([self.program, "-policy", "policy.txt", *arguments], self.folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    return Secrets(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
async def log(keys: Secrets, pair: Pair, databases: Databases) -> AsyncIterator[Log]:
    async with grown(keys, pair, databases, GROWTH) as made:
        yield made


@pytest.fixture(scope="module")
async def second(keys: Secrets, pair: Pair, databases: Databases) -> AsyncIterator[Log]:
    """Another history, signed with the same key under the same name."""
    async with grown(keys, pair, databases, (300,)) as made:
        yield made


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(tmp_path_factory.mktemp("program") / "verify-log")


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[tuple[Front, str]]:
    front = Front()
    async with serving(front) as address:
        yield front, address


@pytest.fixture
def stranger(program: Path, log: Log, served: tuple[Front, str], tmp_path: Path) -> Stranger:
    (tmp_path / "policy.txt").write_bytes(log.policy)
    return Stranger(program, tmp_path, *served)


@pytest.fixture(scope="module")
def script() -> Any:
    """The functions of the script that the document shows."""
    return functions(script_text())


@pytest.fixture(params=["Go", "witness-log"])
def judge(request: pytest.FixtureRequest, log: Log) -> Judge:
    """What a tool that isn't ours finds wrong with a log: nothing, or a word for it."""
    if request.param == "Go":
        stranger = request.getfixturevalue("stranger")
        return lambda app: _by_go(stranger.check(app))
    script = request.getfixturevalue("script")
    return lambda app: _by_witness_log(script, log.policy, app)


@pytest.fixture(params=["Go", "witness-log"])
def judge_receipt(request: pytest.FixtureRequest, tmp_path: Path) -> JudgeReceipt:
    """Whether a receipt holds under a policy, by a tool that isn't ours."""
    if request.param == "Go":
        program = request.getfixturevalue("program")
        return lambda policy, receipt: _receipt_by_go(program, policy, receipt)
    script = request.getfixturevalue("script")
    return lambda policy, receipt: _receipt_by_script(script, policy, receipt)


async def _by_go(said: Awaitable[Said]) -> str:
    return trouble(await said)


async def _by_witness_log(script: Any, policy: bytes, app: Any) -> str:
    read = reader(app)
    checkpoint = await read("/checkpoint")
    try:
        script.signed_tree(checkpoint.decode(), *script.log_key(policy))
    except InvalidSignature:
        return "signature"
    tree = await Tree.fetch(read, size_of(checkpoint))
    return "path" if unproven(script, policy, checkpoint, tree) else ""


async def _receipt_by_go(program: Path, policy: Path, receipt: Path) -> bool:
    said = await run([program, "-policy", policy, "-receipt", receipt], receipt)
    assert said.code in (0, 1)
    return said.code == 0


async def _receipt_by_script(script: Any, policy: Path, receipt: Path) -> bool:
    try:
        script.check(policy, receipt)
    except (SystemExit, Exception):  # noqa: BLE001 - whatever it is, the script ends with it and an exit code of 1
        return False
    return True


@asynccontextmanager
async def grown(keys: Secrets, pair: Pair, databases: Databases, growth: Sequence[int]) -> AsyncIterator[Log]:
    name, run_id = await databases.create("audit", migrate_audit), secrets.token_hex(6)
    # A file of its own: with the other log's in its place, a second history is refused before it begins.
    published = {"published": keys.folder / f"published-{run_id}"}
    config = keys.config(databases.dsn(name, "audit")).model_copy(update=published)
    async with Bus.open(pair.valkey_url, f"t{run_id}:") as bus:
        await make_streams(bus)
        async with audit_service(config, keys, bus) as audit:
            yield await grow(audit, growth)
    await databases.give_back(name)


async def grow(audit: Audit, growth: Sequence[int]) -> Log:
    told: list[Told] = []
    checkpoints: list[bytes] = []

    async def log(service: str, new: Sequence[Told]) -> None:
        await audit.log_at_once({service: new})
        told.extend(new)

    for count in growth:
        await audit.grow(count - 1)
        await log("vault", [audit.writer.tell("vault", n=count)])
        checkpoints.append((await audit.get("/checkpoint")).body)
    await log("consent", [audit.writer.release(n=n) for n in range(RELEASES)])
    checkpoints.append((await audit.get("/checkpoint")).body)
    return Log(audit, (await audit.get("/policy")).body, checkpoints, told)


def saved(folder: Path, files: Sequence[bytes]) -> Path:
    folder.mkdir()
    for name, raw in zip(FILES, files, strict=True):
        (folder / name).write_bytes(raw)
    return folder


def reader(app: Any) -> Get:
    async def read(path: str) -> bytes:
        answer = await ask(app, path)
        assert (200, path) == (answer.status, path)
        return answer.body

    return read


def size_of(checkpoint: bytes) -> int:
    return int(checkpoint.split(b"\n")[1])


def with_size(checkpoint: bytes, size: int) -> bytes:
    origin, _, *rest = checkpoint.split(b"\n")
    return b"\n".join([origin, str(size).encode(), *rest])


def edited_sizes(log: Log) -> tuple[int, ...]:
    return log.sizes[-1] - 1, log.sizes[-1] + 1, 10 * log.sizes[-1]


def script_text() -> str:
    (block,) = blocks(DOCUMENT, "python")
    return block.text


def functions(text: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(text, str(DOCUMENT), "exec"), names)
    return SimpleNamespace(**names)


def unproven(script: Any, policy: bytes, checkpoint: bytes, tree: Tree) -> list[int]:
    """The entries that the stranger's verifier doesn't find in the signed tree."""
    _, root = script.signed_tree(checkpoint.decode(), *script.log_key(policy))
    leaves = enumerate(tree.entries())
    return [
        at
        for at, entry in leaves
        if not witness_log.verify_inclusion(leaf_hash(script, entry), at, tree.size, tree.path(at), root)
    ]


def leaf_hash(script: Any, entry: bytes) -> str:
    return str(script.sha256(b"\0" + entry).hexdigest())


def trouble(said: Said) -> str:
    """What the Go program says is wrong, by its key in MESSAGES; nothing where it is content."""
    if (0, "") == (said.code, said.errors):
        return ""
    (found,) = [key for key, message in MESSAGES.items() if message in said.errors]
    assert said.code == 1
    return found


async def test_log_has_tiles_of_all_kinds(log: Log) -> None:
    names = paths_of(log.sizes[-1])
    assert {"/tile/0/004", f"/tile/0/005.p/{log.sizes[-1] % 256}", "/tile/1/000.p/5"} <= set(names)
    assert [1, 256, 300, 1400, 1401] == log.sizes


async def test_go_follows_the_log_as_it_grows(log: Log, stranger: Stranger) -> None:
    before = 0
    for checkpoint in log.checkpoints:
        said = await stranger.follow(log.as_of(checkpoint))
        assert "" == trouble(said)
        read = f"from {before // 256 * 256} on" if before >= 256 else f"{size_of(checkpoint)}"
        assert f"all {read} are in the tree" in said.out
        assert before == 0 or f"begins with the tree of {before} entries" in said.out
        assert checkpoint == stranger.saved.read_bytes()
        before = size_of(checkpoint)


async def test_go_finds_an_entry_that_was_changed_behind_the_tree_it_saw_last(log: Log, stranger: Stranger) -> None:
    raw = await reader(log.app)("/tile/entries/004")
    assert "" == trouble(await stranger.follow(log.as_of(log.checkpoints[2])))
    seen = stranger.saved.read_bytes()
    assert "entry" == trouble(await stranger.follow(log.with_file("/tile/entries/004", flipped(raw, 2))))
    assert seen == stranger.saved.read_bytes()  # so the next run looks again


async def test_go_takes_the_bare_key_as_well(log: Log, stranger: Stranger, keys: Secrets) -> None:
    stranger.front.app = log.app
    for key, expected in ((keys.vkey, ""), (PrivateKey(ORIGIN, bytes(32)).vkey(), "signature")):
        said = await run([stranger.program, "-key", str(key), stranger.address], stranger.folder)
        assert expected == trouble(said)


async def test_every_entry_is_proven_to_a_strangers_verifier(log: Log, script: Any) -> None:
    for checkpoint in log.checkpoints:
        tree = await log.tree(checkpoint)
        assert size_of(checkpoint) == len(tree.entries())
        assert [] == unproven(script, log.policy, checkpoint, tree)


@pytest.mark.parametrize("shares", [False, True], ids=["alone in its entry", "an entry that releases share"])
async def test_receipt_holds(log: Log, judge_receipt: JudgeReceipt, tmp_path: Path, shares: bool) -> None:
    receipt = await log.receipt(log.sharing if shares else log.told[1], tmp_path / "receipt")
    assert await judge_receipt(receipt / "policy.txt", receipt)


@pytest.mark.parametrize(("name", "before"), PARTS)
async def test_receipt_with_one_bit_changed_is_refused(
    log: Log, judge_receipt: JudgeReceipt, tmp_path: Path, name: str, before: bytes
) -> None:
    receipt = await log.receipt(log.sharing, tmp_path / "receipt")
    assert await judge_receipt(receipt / "policy.txt", receipt)
    file = receipt / name
    whole = file.read_bytes()
    found = re.search(before, whole)
    assert found
    file.write_bytes(flipped(whole, found.end()))
    assert not await judge_receipt(receipt / "policy.txt", receipt)


async def test_opening_of_another_entry_is_refused(log: Log, judge_receipt: JudgeReceipt, tmp_path: Path) -> None:
    receipt, other = [await log.receipt(log.told[at], tmp_path / str(at)) for at in (1, 2)]
    assert await judge_receipt(receipt / "policy.txt", receipt)
    (other / "opening.json").rename(receipt / "opening.json")
    assert not await judge_receipt(receipt / "policy.txt", receipt)


async def test_go_says_what_is_wrong_with_an_opening(log: Log, stranger: Stranger) -> None:
    receipt, other = [await log.receipt(log.told[at], stranger.folder / str(at)) for at in (1, 2)]
    assert "" == trouble(await stranger.run("-receipt", receipt))
    (other / "opening.json").rename(receipt / "opening.json")
    assert "opening" == trouble(await stranger.run("-receipt", receipt))


async def test_opening_in_a_tree_too_large_to_be_is_refused(
    log: Log, judge_receipt: JudgeReceipt, tmp_path: Path
) -> None:
    receipt = await log.receipt(log.sharing, tmp_path / "receipt")
    assert await judge_receipt(receipt / "policy.txt", receipt)
    opening = receipt / "opening.json"
    opening.write_bytes(re.sub(rb'"size":\d+', b'"size":%d' % (2**63 - 1), opening.read_bytes()))
    assert not await judge_receipt(receipt / "policy.txt", receipt)


async def test_policy_that_asks_for_witnesses_is_refused_and_not_half_checked(
    log: Log, judge_receipt: JudgeReceipt, keys: Secrets, tmp_path: Path
) -> None:
    receipt, policy = await log.receipt(log.told[1], tmp_path / "receipt"), tmp_path / "policy.txt"
    witness = Witness("w", PrivateKey("witness.test", bytes(32)).vkey(KeyType.COSIGNATURE))
    for quorum, expected in (("none", True), ("w", False)):
        policy.write_bytes(seal_policy(Policy((keys.vkey,), (witness,), quorum=quorum).to_bytes()))
        assert expected == await judge_receipt(policy, receipt)


async def test_both_tools_say_what_a_receipt_proves(log: Log, stranger: Stranger, script: Any) -> None:
    receipt, detail = await log.receipt(log.told[1], stranger.folder / "receipt"), log.told[1].opening.detail.decode()
    said = await stranger.check(log.app, "-receipt", receipt)
    assert "" == trouble(said)
    assert detail in said.out
    assert f"begins with the tree of {log.sizes[-1]} entries in receipt.tlog-proof" in said.out
    assert script.check(receipt / "policy.txt", receipt).endswith(f"of {log.sizes[-1]} commits to {detail}")


@pytest.mark.parametrize("path", ["/tile/0/000", "/tile/0/004", "/tile/0/005.p/{}", "/tile/1/000.p/5"])
async def test_flipped_byte_of_a_tile_is_caught(log: Log, judge: Judge, path: str) -> None:
    path = path.format(log.sizes[-1] % 256)
    raw = await reader(log.app)(path)
    assert "" == await judge(log.app)
    for at in (0, len(raw) // 2, len(raw) - 1):
        assert await judge(log.with_file(path, flipped(raw, at))) in {"tile", "path"}


async def test_changed_entry_is_caught(log: Log, judge: Judge) -> None:
    raw = await reader(log.app)("/tile/entries/003")
    assert "" == await judge(log.app)
    for at in (2, len(raw) - 1):  # behind the first entry's length, and at the last one's end
        assert await judge(log.with_file("/tile/entries/003", flipped(raw, at))) in {"entry", "path"}


async def test_edited_size_is_caught_by_its_signature(log: Log, judge: Judge) -> None:
    assert "" == await judge(log.app)
    for size in edited_sizes(log):
        assert "signature" == await judge(log.as_of(with_size(log.checkpoints[-1], size)))


async def test_edited_size_shows_in_the_path_of_the_last_entry_and_not_of_every_entry(log: Log, script: Any) -> None:
    tree, last = await log.tree(log.checkpoints[-1]), log.sizes[-1] - 1
    _, root = script.signed_tree(log.checkpoints[-1].decode(), *script.log_key(log.policy))
    entries = tree.entries()

    def proves(index: int, size: int) -> bool:
        leaf = leaf_hash(script, entries[index])
        return bool(witness_log.verify_inclusion(leaf, index, size, tree.path(index), root))

    assert proves(last, log.sizes[-1])
    assert [False, False, False] == [proves(last, size) for size in edited_sizes(log)]
    assert proves(0, log.sizes[-1] + 1)  # so no path can stand in for the signature


async def test_size_that_the_log_itself_signs_falsely_is_caught_by_its_tiles(
    log: Log, judge: Judge, script: Any, keys: Secrets
) -> None:
    assert "" == await judge(log.app)
    _, root = script.signed_tree(log.checkpoints[-1].decode(), *script.log_key(log.policy))
    lie = Checkpoint(ORIGIN, log.sizes[-1] - 1, bytes.fromhex(root))
    signed = sign_note(lie.text(), [Ed25519Signer(PrivateKey(ORIGIN, read_key(keys.folder / "log")))])
    assert await judge(log.as_of(signed)) in {"tile", "path"}


async def test_second_history_looks_honest_to_who_sees_it_alone(second: Log, judge: Judge) -> None:
    assert "" == await judge(second.app)


async def test_second_history_is_caught_by_who_saw_the_first(log: Log, second: Log, stranger: Stranger) -> None:
    first = log.checkpoints[2]
    assert ["", ""] == [trouble(await stranger.follow(log.as_of(first))) for _ in range(2)]
    said = await stranger.follow(second.app)
    assert "history" == trouble(said)
    assert second.checkpoints[-1].decode() in said.errors  # half of the evidence; the other half is kept
    assert first == stranger.saved.read_bytes()


async def test_second_history_of_the_same_size_is_caught(log: Log, second: Log, stranger: Stranger) -> None:
    one, other = log.checkpoints[2], second.checkpoints[0]
    assert size_of(one) == size_of(other)
    assert "" == trouble(await stranger.follow(log.as_of(one)))
    assert "history" == trouble(await stranger.follow(second.as_of(other)))


async def test_second_history_is_caught_by_who_has_a_receipt(log: Log, second: Log, stranger: Stranger) -> None:
    receipt = await second.receipt(second.told[7], stranger.folder / "receipt")
    assert "" == trouble(await stranger.check(second.app, "-receipt", receipt))
    assert "history" == trouble(await stranger.check(log.app, "-receipt", receipt))


async def test_second_history_does_not_hold_what_the_first_did(log: Log, second: Log, script: Any) -> None:
    checkpoint = second.checkpoints[-1]
    theirs, ours = await second.tree(checkpoint), await log.tree(log.checkpoints[2])
    _, root = script.signed_tree(checkpoint.decode(), *script.log_key(log.policy))
    for entries, expected in ((theirs.entries(), True), (ours.entries(), False)):
        held = [
            witness_log.verify_inclusion(leaf_hash(script, entry), at, theirs.size, theirs.path(at), root)
            for at, entry in enumerate(entries)
        ]
        assert [expected] * len(entries) == held


async def test_log_that_shrank_is_caught(log: Log, stranger: Stranger) -> None:
    assert "" == trouble(await stranger.follow(log.as_of(log.checkpoints[3])))
    assert "shrunk" == trouble(await stranger.follow(log.as_of(log.checkpoints[2])))
    assert log.checkpoints[3] == stranger.saved.read_bytes()


TYPED = """set -e
python() {{ {python} "$@"; }}
parley() {{ {python} -m parley_node.cli "$@"; }}
pip() {{ {python} -c 'import sys; from importlib.metadata import version; [*map(version, sys.argv[2:])]' "$@"; }}
"""
"""A shell in which to type what the document says; what it installs is installed."""


async def test_commands_of_the_document_do_what_it_says(log: Log, stranger: Stranger) -> None:
    built = stranger.folder / "examples/verify-log"
    shutil.copytree(PROGRAM, built, ignore=shutil.ignore_patterns(built.name))
    for folder in (stranger.folder, built):
        await log.receipt(log.told[1], folder / "RECEIPT")
        (folder / "policy.txt").write_bytes(log.policy)
    (stranger.folder / "check_receipt.py").write_text(script_text(), encoding="utf-8")
    stranger.front.app = log.app
    typed = [line for block in blocks(DOCUMENT, "console") for line in block.commands]
    meant = [re.sub(r"\bLOG\b", stranger.address, line) for line in typed]
    said = await run(["bash", "-c", "\n".join([TYPED.format(python=sys.executable), *meant])], stranger.folder)
    assert (0, "") == (said.code, said.errors)
    assert len(meant) == 9
    assert (built / "checkpoint.txt").exists()


def test_document_says_what_the_program_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [] == [message for message in MESSAGES.values() if f"`{message}`" not in text]


def test_program_is_formatted_and_vetted(program: Path) -> None:
    formatted, vetted = go("-l", ".", tool="gofmt"), go("vet", ".")
    assert [(0, "", "")] * 2 == [(each.returncode, each.stdout, each.stderr) for each in (formatted, vetted)]
