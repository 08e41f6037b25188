"""
What an exchange costs, beside a bare echo of the same transport in the same run, and what customers wait for: ``make bench``.

Absolute figures don't carry from machine to machine; ratios do. Clients are processes of their own; PostgreSQL runs with
fsync and synchronous commits, as everywhere, unless it is told to do without.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from parley_node.embedded.paths import layout
from parley_node.home import Home
from parley_node.stores import dsn, servers_of
from tests.bench.cpu import seconds
from tests.bench.job import Job
from tests.bench.stage import Stage, found, process
from tests.bench.without import PROMISES, leave_out, told
from tests.support.chaos import listener
from tests.support.servers import scratch_directory

CUSTOMERS, FEWEST = 10_000, 1_000
_OUT = Path("build/bench.json")
_TARGETS = {
    "rps_ratio_32": (0.20, True),
    "p50_ratio_1": (7.0, False),
    "campaign_customers_per_s": (5000.0, True),
    "withdrawal_p99_ms_32": (20.0, False),
    "proof_p99_ms_32": (500.0, False),
    "leaves_per_s": (5000.0, True),
}
"""What is promised: the figure, and whether more is better."""


def main() -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load lasts")
    parser.add_argument("--profile", type=Path, help="keep a profile of the node here (cProfile)")
    parser.add_argument("--only", choices=["campaign", "single", "acts"], help="leave the rest out")
    parser.add_argument(
        "--without", choices=PROMISES, nargs="+", default=[], help="what to leave out, to see what it costs"
    )
    options = parser.parse_args()
    if options.without and options.only not in ("campaign", "single"):
        parser.error("--without needs --only campaign or single: the others measure what it may leave out")
    leave_out(options.without)
    if options.only in (None, "acts") and options.customers < FEWEST:
        parser.error(f"{FEWEST:,} customers are the fewest: some withdraw while others are asked")
    with scratch_directory() as root:
        figures = _measured(root, options)
    _OUT.parent.mkdir(exist_ok=True)
    out = _OUT.with_stem("-".join(filter(None, ["bench", options.only, *options.without])))
    out.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    _show(figures)


def _measured(root: Path, options: Any) -> dict[str, Any]:
    say = Console(stderr=True).print
    say(f"  {options.customers:,} customers are made")
    stage = Stage.at(root, options.customers)
    with process("tests.bench.node", str(stage.home.root), profile=options.profile) as node:
        job = asyncio.run(stage.marketer(node.address))
        parts = _Parts(node.pid, _servers(stage.home))
        say("  campaign")
        campaign = _run(job, parts, kind="campaign", customers=options.customers)
        figures: dict[str, Any] = {
            "campaign_customers_per_s": campaign.pop("customers_per_s"),
            **_named("campaign", campaign),
        }
        if "durability" not in told():
            figures |= asyncio.run(_durability(stage.home))
        if options.only == "campaign":
            return figures | _where()
        for callers in () if options.only == "acts" else (1, 32):
            say(f"  single exchange, {callers} at once")
            single = _run(job, parts, kind="single", callers=callers, seconds=options.seconds)
            with process("tests.bench.echo") as echo:
                say(f"  echo, {callers} at once")
                bare = _run(
                    job,
                    _Parts(echo.pid),
                    kind="echo",
                    address=echo.address,
                    callers=callers,
                    seconds=options.seconds / 2,
                )
            figures |= _ratios(callers, single, bare)
            figures |= _named(f"exchange_{callers}", single) | _named(f"echo_{callers}", bare)
        if options.only != "single":
            say("  withdrawals, one by one and beside 32 exchanges at once")
            figures |= found(job, kind="withdrawals")
            say("  leaves of the log")
            figures |= found(job, kind="leaves")
    return figures | _where()


def _where() -> dict[str, Any]:
    where = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "commit": _commit()}
    return where | {"without": told()} if told() else where


async def _durability(home: Home) -> dict[str, str]:
    """How the database keeps what it commits, as it says itself to a service."""
    async with servers_of(home) as pair:
        connection = await asyncpg.connect(dsn(pair, home, "consent"))
        try:
            return {name: await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")}
        finally:
            await connection.close()


def _ratios(callers: int, single: dict[str, float], bare: dict[str, float]) -> dict[str, float]:
    return {
        f"exchange_rps_{callers}": single["rps"],
        f"echo_rps_{callers}": bare["rps"],
        f"rps_ratio_{callers}": single["rps"] / bare["rps"],
        f"exchange_p50_ms_{callers}": single["p50_ms"],
        f"echo_p50_ms_{callers}": bare["p50_ms"],
        f"p50_ratio_{callers}": single["p50_ms"] / bare["p50_ms"],
    }


def _servers(home: Home) -> list[int]:
    """The processes of PostgreSQL and Valkey."""
    where = layout(home.servers)
    return [listener(where.postgres_sockets / ".s.PGSQL.5432"), listener(where.valkey_socket)]


@dataclass(frozen=True)
class _Parts:
    """What works for the backend: the services' process, and the servers that it may have started."""

    services: int
    servers: Sequence[int] = ()

    def seconds(self) -> dict[str, float]:
        """The seconds of one core that each has taken so far."""
        servers = sum(map(seconds, self.servers))
        return {"services": seconds(self.services) - servers, "servers": servers}


def _run(job: Job, parts: _Parts, **changes: Any) -> dict[str, float]:
    """Do a job; answers what it measured, and the milliseconds of one core that each part took for each that was done."""
    before = parts.seconds()
    figures = found(job, **changes)
    done = figures.pop("done")
    taken = {part: now - before[part] for part, now in parts.seconds().items()}
    taken |= {"backend": figures.pop("cpu_s")}
    return figures | {f"{part}_cpu_ms": took / done * 1000 for part, took in taken.items()}


def _named(what: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{what}_{name}": value for name, value in figures.items() if name.endswith("_cpu_ms")}


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def _show(figures: dict[str, Any]) -> None:
    left_out = f", without {', '.join(told())}" if told() else ""
    table = Table(title=f"Parley beside a bare echo{left_out}")
    for column in ("figure", "measured", "promised"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:,.2f}", *_promised(name, value))
    Console().print(table)


def _promised(name: str, value: float) -> tuple[str]:
    if name not in _TARGETS:
        return ("",)
    wanted, more = _TARGETS[name]
    kept = value >= wanted if more else value <= wanted
    return (f"{'≥' if more else '≤'} {wanted:,g}{'' if kept else ', missed'}",)


if __name__ == "__main__":
    main()
