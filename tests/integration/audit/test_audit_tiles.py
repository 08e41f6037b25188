"""The log over HTTP: what any tlog tool needs, byte for byte, and nothing more."""

from parley_audit.policy import policy_text
from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.tlog.tiles import TileReader, changed_bundles, changed_tiles, decode_bundle
from tests.support.audit import Audit, Secrets


async def log(audit: Audit, *counts: int) -> list[Checkpoint]:
    """Grow the log by so many entries, some of them of something; the checkpoint after each number."""
    found = []
    for count in counts:
        await audit.grow(count - 1)
        await audit.log_at_once({"vault": [audit.writer.tell("vault")]})
        found.append(await checkpoint(audit))
    return found


async def checkpoint(audit: Audit) -> Checkpoint:
    answer = await audit.get("/checkpoint")
    assert (200, "text/plain; charset=utf-8") == (answer.status, answer.headers["content-type"])
    assert "max-age=2" in answer.headers["cache-control"]
    return parse_sealed_policy(policy_text(audit.keys.vkey)).check(answer.body)


async def fetched(audit: Audit, size: int) -> dict[str, bytes]:
    paths = [tile.path for tile in (*changed_tiles(0, size), *changed_bundles(0, size))]
    return {path: (await audit.get(f"/{path}")).body for path in paths}


async def test_tiles_rebuild_the_root_of_every_checkpoint(audit: Audit) -> None:
    checkpoints = await log(audit, 3, 250, 3, 300)
    assert [3, 253, 256, 556] == [each.size for each in checkpoints]
    for each in checkpoints:  # also the older ones: their partial tiles are still served
        files = await fetched(audit, each.size)
        reader = TileReader(files.__getitem__, each.size)
        assert each.root == reader.root()
        entries = [
            entry for tile in changed_bundles(0, each.size) for entry in decode_bundle(files[tile.path], tile.width)
        ]
        assert each.root == merkle.root([merkle.leaf_hash(entry) for entry in entries])
        merkle.verify_consistency(
            each.size,
            556,
            each.root,
            checkpoints[-1].root,
            TileReader((await fetched(audit, 556)).__getitem__, 556).consistency_proof(each.size),
        )


async def test_tiles_may_be_kept_for_ever_and_asked_for_by_head(audit: Audit) -> None:
    await log(audit, 2)
    answer = await audit.get("/tile/0/000.p/2")
    assert "application/octet-stream" == answer.headers["content-type"]
    assert "immutable" in answer.headers["cache-control"]
    head = await audit.get("/tile/0/000.p/2", "HEAD")
    assert (200, answer.headers["content-length"]) == (head.status, head.headers["content-length"])


ELSEWHERE = (
    "/", "/tile", "/tile/0/000", "/tile/0/000.p/3", "/tile/0/001.p/1", "/tile/1/000.p/1", "/tile/0/0", "/tile/63/000",
    "/tile/entries/000", "/tile/entries/000.p/3", "/tile/0/x999/x999/x999/x999/x999/x999/999", "/checkpoint/", "/x",
    "/tile/0/000.p/2/", "/tile/0/000.p/02", "/tile/-1/000", "/tile/0/../0/000.p/2",
)  # fmt: skip


async def test_nothing_else_is_served(audit: Audit) -> None:
    await log(audit, 2)
    answers = {path: await audit.get(path) for path in ELSEWHERE}
    assert dict.fromkeys(ELSEWHERE, 404) == {path: answer.status for path, answer in answers.items()}
    assert not any("cache-control" in answer.headers for answer in answers.values())


async def test_no_tile_is_served_before_a_checkpoint_covers_it(audit: Audit) -> None:
    assert 404 == (await audit.get("/checkpoint")).status
    await log(audit, 1)
    await audit.db.execute("UPDATE log_checkpoint SET size = 0")
    assert 404 == (await audit.get("/tile/0/000.p/1")).status


async def test_the_policy_is_what_receipts_are_verified_with(audit: Audit, keys: Secrets) -> None:
    answer = await audit.get("/policy")
    assert (keys.vkey,) == parse_sealed_policy(answer.body).logs
