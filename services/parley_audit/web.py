"""The log over HTTP, as any tlog tool reads it (c2sp.org/tlog-tiles), and the policy that trusts it."""

from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_audit.growth import covers, cut
from parley_audit.store import Store
from parley_crypto.tlog.errors import TileInvalid
from parley_crypto.tlog.tiles import ENTRIES, WIDTH, Tile, encode_bundle, parse_path
from parley_db.database import Database
from parley_kit.faults import Unavailable

_TEXT = "text/plain; charset=utf-8"
_BRIEFLY = {"cache-control": "public, max-age=2"}
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


def tiles_app(db: Database, store: Store, policy: bytes) -> Starlette:
    """Make the application: ``/checkpoint``, ``/tile/...`` and ``/policy``, for GET and HEAD, and nothing else."""
    files = _Files(db, store, policy)
    routes = [
        Route("/checkpoint", files.checkpoint),
        Route("/policy", files.policy_file),
        Route("/tile/{name:path}", files.tile),
    ]
    app = Starlette(routes=routes, exception_handlers={Unavailable: _unavailable})
    app.router.redirect_slashes = False  # a path has one spelling
    return app


@dataclass(frozen=True)
class _Files:
    db: Database
    store: Store
    policy: bytes

    async def checkpoint(self, _request: Request) -> Response:
        note = (await self.store.published()).note
        if note is None:
            raise HTTPException(404)
        return Response(note, media_type=_TEXT, headers=_BRIEFLY)

    async def policy_file(self, _request: Request) -> Response:
        return Response(self.policy, media_type=_TEXT, headers=_BRIEFLY)

    async def tile(self, request: Request) -> Response:
        tile = _tile(request)
        # A tile that no checkpoint covers may still turn out otherwise, so no cache may see it.
        if not covers((await self.store.published()).size, tile):
            raise HTTPException(404)
        body = await (self._bundle(tile) if tile.level == ENTRIES else self._hashes(tile))
        return Response(body, media_type="application/octet-stream", headers=_FOR_EVER)

    async def _hashes(self, tile: Tile) -> bytes:
        return cut(tile, (await self.store.tiles(self.db, [tile]))[tile.full])

    async def _bundle(self, tile: Tile) -> bytes:
        first = tile.index * WIDTH
        return encode_bundle(await self.store.entries(self.db, first, first + tile.width))


def _tile(request: Request) -> Tile:
    try:
        return parse_path(f"tile/{request.path_params['name']}")
    except TileInvalid:
        raise HTTPException(404) from None


async def _unavailable(_request: Request, _fault: Exception) -> Response:
    return Response("unavailable\n", 503, media_type=_TEXT, headers={"retry-after": "1"})
