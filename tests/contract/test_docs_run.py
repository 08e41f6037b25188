"""README.md and docs/sdk.md, followed to the letter: the backends that they show, and the story to type."""

import asyncio
import json
import os
import shlex
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from parley_client import Client, Kind, attribute
from parley_crypto.keyfiles import ensure_key
from parley_crypto.signing import Sealer, Signer
from parley_node import people
from parley_node.home import Home, NotRunning, Running
from tests.support.chaos import rows
from tests.support.documents import ROOT, blocks
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Customer, World, living_world

README, SDK = ROOT / "README.md", ROOT / "docs/sdk.md"
_LISTINGS = {"OFFER": ("inbox", "name"), "CONSENT": ("consents", "name"), "PSEUDONYM": ("consent", "pseudonym")}
_PARLEY = (sys.executable, "-m", "parley_node.cli")


async def test_backend_of_the_readme_gets_what_a_customer_accepts() -> None:
    (backend,) = blocks(README, "python")
    async with (
        _stage() as (root, _world, customer, environment),
        asyncio.TaskGroup() as group,
    ):  # the first failure is reported
        running = group.create_task(_run((sys.executable, "-W", "error", "-c", backend.text), environment, root))
        group.create_task(_accept(customer))
        assert "{'profile.city': 'Lisbon'}" in await running


async def test_backend_that_goes_on_keeps_what_comes_and_says_so() -> None:
    (backend,) = blocks(SDK, "python")
    async with _stage() as (root, world, customer, environment), Client.from_env(environment) as parley:
        await parley.create_exchange(
            where=attribute("profile.age").is_(34),
            ask=["profile.city"],
            purposes=["Marketing"],
            valid_for=timedelta(days=30),
            decide_within=timedelta(days=7),
        )
        consent = await customer.accept(await customer.offer())
        async with _running(backend.text, str(root / "kept"), environment, root) as said:
            assert "{'profile.city': 'Lisbon'} until" in await said()
            await customer.withdraw(consent.name)
            assert f"ConsentRevoked {consent.name}" in await said()
            await until(lambda: _nothing_waits(world), 60)
        kept = sqlite3.connect(root / "kept").execute("SELECT delivery FROM deliveries").fetchall()
        assert {Kind.RELEASE, Kind.NOTICE} == {parley.delivery(raw).kind for (raw,) in kept}


@asynccontextmanager
async def _stage() -> AsyncIterator[tuple[Path, World, Customer, Mapping[str, str]]]:
    """A customer who can be found, and what a marketer's backend is told; in a folder."""
    with scratch_directory() as root:
        async with living_world(root / "home") as world:
            customer = await world.customer()
            await customer.put(profile_age="34", profile_city="Lisbon")
            await customer.discoverable("profile_age")
            yield root, world, customer, await _marketer(world, root / "shop")


async def _nothing_waits(world: World) -> bool:
    return not await rows(world, "broker", "SELECT FROM deliveries")


@asynccontextmanager
async def _running(
    text: str, argument: str, environment: Mapping[str, str], folder: Path
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """A program that goes on; what it says next. It is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", text, argument),
        env={**os.environ, **environment},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None

    async def said() -> str:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            return (await process.stdout.readline()).decode()

    try:
        yield said
    finally:
        process.terminate()
        await process.wait()


async def test_story_of_the_readme_can_be_lived_by_typing_it() -> None:
    (up, *typed) = [
        line for block in blocks(README, "console", under="Live the story by hand") for line in block.commands
    ]
    with scratch_directory() as home:
        environment = {"HOME": str(home)}
        meanings: dict[str, str] = {}
        said: dict[str, list[str]] = {}
        async with _up(shlex.split(up), home, environment):
            *story, last = typed
            for line in story:
                words = shlex.split(line)[1:]
                for word in set(words) & _LISTINGS.keys() - meanings.keys():
                    meanings[word] = await _meant(word, environment, home)
                words = [meanings.get(word, word) for word in words]
                said.setdefault(line, []).append(await _run((*_PARLEY, *words), environment, home))
        said[last] = [await _run((*_PARLEY, *shlex.split(last)[1:]), environment, home)]
    asked_again = [texts for line, texts in said.items() if "ask-known" in line]
    assert [("Lisbon" in first, "Nothing was released" in second) for first, second in asked_again] == [(True, True)]
    assert "Lisbon" in said["parley marketer deliveries"][0]
    assert "log index" in said[last][0]


async def _accept(customer: Customer) -> None:
    """Accept the offer, when it comes: a backend of its own takes a while to start."""
    await until(customer.offers, 60)
    await customer.accept(await customer.offer())


async def _marketer(world: World, folder: Path) -> Mapping[str, str]:
    """Register a marketer, with keys in files as the SDK reads them; the variables that it reads."""
    signing, sealing = folder / "signing.key", folder / "sealing.key"
    ensure_key(signing)
    ensure_key(sealing)
    address = world.node.running.address
    async with people.staff(address, world.home, "operator") as operator:
        marketer = await people.register_marketer(
            operator,
            name="Trail & Summit",
            entity="Trail & Summit Ltd",
            contact="privacy@trail-and-summit.example",
            level=2,
            signing_key=Signer.load(signing).public_key,
            sealing_key=Sealer.load(sealing).public_key,
        )
    return {
        "PARLEY_ADDRESS": address,
        "PARLEY_MARKETER": marketer.name,
        "PARLEY_SIGNING_KEY_FILE": str(signing),
        "PARLEY_SEALING_KEY_FILE": str(sealing),
        "PARLEY_TRUST_FILE": str(world.home.trust),
        "PARLEY_POLICY_FILE": str(world.home.policy),
    }


@asynccontextmanager
async def _up(words: Sequence[str], home: Path, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """The first terminal, on free ports; stopped as Ctrl-C does."""
    command = (*_PARLEY, *words[1:], "--port", "0", "--http-port", "0")
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, cwd=home, stdout=asyncio.subprocess.DEVNULL
    )

    async def answers() -> Running | None:
        assert process.returncode is None, "parley up has ended"
        try:
            return Home(home / ".parley").running()
        except NotRunning:
            return None

    try:
        await until(answers, 60)
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def _meant(word: str, environment: Mapping[str, str], home: Path) -> str:
    """What a reader types for a placeholder: the one name that a listing shows."""
    command, key = _LISTINGS[word]
    which = [await _meant("CONSENT", environment, home)] if command == "consent" else []
    found: list[dict[str, str]] = []

    async def listed() -> bool:
        text = await _run((*_PARLEY, "customer", command, *which, "--json"), environment, home)
        answer = json.loads(text)
        found[:] = answer if isinstance(answer, list) else [answer]
        return bool(found)

    await until(listed, 30)
    return found[0][key]


async def _run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """Run to the end; what was printed. Fails with what was said if it was refused."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, cwd=folder, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate()
    assert process.returncode == 0, (command, errors.decode(), out.decode())
    return out.decode()
