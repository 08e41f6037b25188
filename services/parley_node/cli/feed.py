"""A marketer's feed on the command line: opened, checked, kept sealed, acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_client import Client, Delivery, Kind, Notice, Release, Settings
from parley_client.deliveries import Opener
from parley_crypto.keyfiles import read_keys
from parley_crypto.signing import Sealer
from parley_crypto.trust import Trust
from parley_kit.files import replace_durably
from parley_node.cli import show
from parley_node.cli.names import find


@dataclass(frozen=True)
class Inbox:
    """What was delivered to one marketer. ``folder`` keeps it as it came: values stay sealed on disk."""

    client: Client
    folder: Path

    async def rows(self, *, silence: float | None, acknowledge: bool) -> AsyncIterator[show.Row]:
        """Give each delivery's content, and keep it; ends after so many seconds of silence (None: never)."""
        async with aclosing(self.client.deliveries()) as feed:
            while True:
                try:
                    async with asyncio.timeout(silence):
                        delivery = await anext(feed)
                except TimeoutError:
                    return
                yield _row(delivery)
                await self.keep(delivery, acknowledge=acknowledge)

    async def keep(self, delivery: Delivery, *, acknowledge: bool) -> None:
        """Keep a release, and only then say so, if it is to be acknowledged."""
        if delivery.kind is Kind.RELEASE:
            await asyncio.to_thread(self._write, delivery.message)
        if acknowledge:
            await self.client.acknowledge(delivery)

    def _write(self, message: brokerpb.Delivery) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        replace_durably(self.folder / f"{message.release.release_id}.delivery", message.SerializeToString())


def kept(folder: Path, given: str, settings: Settings) -> Delivery:
    """Find a release that was kept. Raises Stop, KeyFileUnusable and TrustUnusable."""
    return Delivery(brokerpb.Delivery.FromString(_read(folder, given)), _opener(settings))


def _opener(settings: Settings) -> Opener:
    sealers = [Sealer(key) for key in reversed(read_keys(settings.sealing_key_file).values())]
    return Opener(settings.marketer, sealers, Trust.load(settings.trust_file))


def kept_rows(folder: Path, settings: Settings) -> list[show.Row]:
    """Every release that was kept, opened and checked again, oldest first. Raises KeyFileUnusable and TrustUnusable."""
    opener = _opener(settings)
    paths = sorted(folder.glob("*.delivery"), key=lambda path: path.stat().st_mtime_ns)
    return [_row(Delivery(brokerpb.Delivery.FromString(path.read_bytes()), opener)) for path in paths]


def release_row(release: Release) -> show.Row:
    """Write a release for a person."""
    answers = {str(asked): answer for asked, answer in release.answers.items()}
    return {
        "kind": str(Kind.RELEASE),
        "release": release.release_id,
        "pseudonym": release.pseudonym,
        "exchange": release.exchange,
        "consent": release.consent_name,
        **release.values,
        **answers,
        "expires": show.iso(release.expires) if release.expires else "",
    }


def pseudonyms(folder: Path) -> list[str]:
    """Who the releases that were kept are about."""
    messages = (brokerpb.Delivery.FromString(path.read_bytes()) for path in folder.glob("*.delivery"))
    return [message.release.pseudonym for message in messages]


def _read(folder: Path, given: str) -> bytes:
    paths = {path.stem: path for path in folder.glob("*.delivery")}
    return paths[find(given, paths, what="release", listing="parley marketer deliveries --kept")].read_bytes()


def _row(delivery: Delivery) -> show.Row:
    return release_row(delivery.open()) if delivery.kind is Kind.RELEASE else _notice_row(delivery.notice())


def _notice_row(notice: Notice) -> show.Row:
    return {
        "kind": str(Kind.NOTICE),
        "notice": notice.notice,
        "consent": notice.consent,
        "pseudonym": notice.pseudonym,
        "time": show.iso(notice.time),
    }
