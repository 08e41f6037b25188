"""Do the numbers say what happened, and nothing about anybody? Over the wire, as Prometheus reads them."""

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from parley_node.doctor.metrics import Sample, Told, ask
from parley_node.services import SERVICES
from parley_node.split import ApartNode
from parley_rpc.metrics import DESCRIBED
from parley_rpc.zones import Zones
from tests.support.broker import holding
from tests.support.canaries import word
from tests.support.chaos import frozen
from tests.support.waiting import until
from tests.support.world import Customer, World, between, by_criteria, terms

CITY = word()


async def test_exchange_and_withdrawal_are_counted_by_outcome(world: World) -> None:
    before = await _totals(world)
    await _exchange(world, "71")

    made = {name: total - before.get(name, 0) for name, total in (await _totals(world)).items()}
    assert made["parley_decisions_total asked"] >= 1  # others of that age may live in this world, too
    assert made["parley_decisions_total allowed"] >= 1
    assert made["parley_settlements_total settled"] >= 1
    assert 1 == made["parley_withdrawals_total "]
    assert 1 == made["parley_rpc_calls_total OK parley.consent.v1.ConsentService/WithdrawConsent"]
    assert made["parley_rpc_calls_total OK parley.vault.v1.VaultService/Release"] >= 1


async def test_withdrawing_twice_counts_once(world: World) -> None:
    before = await _totals(world)
    customer, consent = await _exchange(world, "72")
    await customer.withdraw(consent)
    made = (await _totals(world))["parley_withdrawals_total "] - before.get("parley_withdrawals_total ", 0)
    assert 1 == made


async def _exchange(world: World, age: str) -> tuple[Customer, str]:
    """A customer who accepts an offer and withdraws once the release has come, and the consent."""
    marketer, customer = await world.marketer(), await world.customer()
    await customer.put(profile_age=age, profile_city=CITY)
    await customer.discoverable("profile.age")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", age, age)))
    consent = await customer.accept(await customer.offer())
    await marketer.collect(1)
    await customer.withdraw(consent.name)
    return customer, consent.name


async def test_every_service_shows_its_events_loops_pool_and_clock(world: World) -> None:
    async def flowing() -> bool:
        told = await _told(world)
        zones = Zones.load()
        return all(told.relay(name) == "flowing" for name in SERVICES) and all(
            told.consumer(writer, reader) == "flowing"
            for writer, readers in zones.readers.items()
            for reader in readers
        )

    await until(flowing)
    for name, samples in (await _told(world)).samples.items():
        shown = {(each.name, each.labels.get("service", "")) for each in samples}
        for metric in ("outbox_oldest_seconds", "pool_connections", "pool_wait_seconds_count", "clock_seconds"):
            assert (f"parley_{metric}", name) in shown
        assert ("parley_loop_lag_seconds_count", "") in shown


async def test_time_that_passes_is_measured(world: World) -> None:
    """Of a call, and of the wait for a connection: neither is nothing, and a call no longer than it took."""
    before, began = await _sums(world), time.monotonic()
    await world.customer()
    took = time.monotonic() - began
    registering = "parley_rpc_duration_seconds_sum parley.identity.v1.IdentityService/RegisterCustomer"
    after = await _sums(world)
    assert 0 < after[registering] - before.get(registering, 0) <= took
    for each in await _all(world):
        if each.name == "parley_pool_wait_seconds_sum":
            assert each.value > 0


async def test_lag_and_age_show_while_a_reader_is_held(world: World) -> None:
    async def is_gone() -> bool:
        return not await _oldest(world, "identity")

    await until(is_gone, 30)  # nothing of before is told any more
    began = time.monotonic()
    async with _audit_held(world):
        await world.customer()
        await until(lambda: _lags(world, "identity", "audit"))

        async def is_old() -> bool:
            return await _oldest(world, "identity") >= 1.0

        await until(is_old, 30)
        assert await _oldest(world, "identity") <= time.monotonic() - began + _PULSE_S
    await until(is_gone, 30)


_PULSE_S = 1.0
"""An age is told as of when it was looked at, by the database's clock, which may have begun a little before."""


@asynccontextmanager
async def _audit_held(world: World) -> AsyncIterator[None]:
    """Audit reads nothing for the length of a block."""
    if isinstance(world.node, ApartNode):
        with frozen(world.node.doors.socket("audit")):
            yield
        return
    async with holding("audit.apply.before_commit") as there:
        await world.customer()
        await there.wait()
        yield


async def _oldest(world: World, service: str) -> float:
    """How old a service's oldest event is that somebody has yet to read."""
    samples = (await _told(world)).samples[service]
    (age,) = [
        each.value
        for each in samples
        if (each.name, each.labels.get("service")) == ("parley_outbox_oldest_seconds", service)
    ]
    return age


async def _lags(world: World, stream: str, group: str) -> bool:
    return (await _told(world)).lag(stream, group) > 0


async def test_lag_goes_back_to_nothing_once_all_is_read(world: World) -> None:
    await world.customer()

    async def read() -> bool:
        samples = [each for each in await _all(world) if each.name == "parley_stream_lag"]
        return bool(samples) and all(each.value == 0 for each in samples)

    await until(read)


async def test_no_label_holds_anything_but_names_that_are_the_softwares_own(world: World) -> None:
    await _exchange(world, "73")
    described = {name.removesuffix("_total"): set(labels) for name, (_said, labels) in DESCRIBED.items()}
    for each in await _all(world):
        base = each.name
        for ending in ("_total", "_bucket", "_count", "_sum", "_created"):
            base = base.removesuffix(ending)
        assert set(each.labels) - {"le"} == described[base], each
        for label, value in each.labels.items():
            assert _is_ours(label, value), each


def _is_ours(label: str, value: str) -> bool:
    """Whether a label's value is one of a few that the code itself has."""
    if label in {"service", "stream", "group"}:
        return value in SERVICES
    if label == "method":
        return value.startswith(("parley.", "grpc.")) and value.count("/") == 1
    if label == "le":
        return float(value) >= 0
    return value.replace("_", "").isalpha() and len(value) < 40


async def _told(world: World) -> Told:
    return await ask(world.node.running)


async def _all(world: World) -> list[Sample]:
    """Every sample of every process, once."""
    told = await _told(world)
    found = {id(samples): samples for samples in told.samples.values()}
    assert all(found.values())
    return [each for samples in found.values() for each in samples]


async def _sums(world: World) -> Mapping[str, float]:
    """What histograms have added up to, over all processes."""
    sums = defaultdict[str, float](float)
    for each in await _all(world):
        if each.name.endswith("_seconds_sum"):
            sums[f"{each.name} {each.labels.get('method', '')}"] += each.value
    return sums


async def _totals(world: World) -> Mapping[str, float]:
    """Counters over all processes, by name and values of their labels."""
    totals: Counter[str] = Counter()
    for each in await _all(world):
        if each.name.endswith("_total"):
            labels = [value for _, value in sorted(each.labels.items())]
            totals[f"{each.name} {' '.join(labels)}"] += int(each.value)
    return totals
