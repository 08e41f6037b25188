"""
Where the time of one exchange goes, by itself: ``make profile``.

It prints a table, the chart that docs/performance.md has, and what a bare echo took in between. Times are medians, in
milliseconds since broker had the request.
"""

import argparse
import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.stage import Stage, found, process
from tests.bench.steps import CALLS, STATEMENTS
from tests.support.servers import scratch_directory

FIRST, LAST = next(iter(CALLS)), [*CALLS][-1]
NEXT = "the next exchange"
"""When the same caller's next request is there."""
STEPS = (*CALLS, *(f"{service}.{name}" for name, service in STATEMENTS.items()))

_BACKEND = {
    "the way there and back, opens it, checks signatures": (FIRST, LAST),
    "the way there and back, asks for the next": (LAST, NEXT),
}
"""What its backend does between an answer and a request."""


class Step(NamedTuple):
    """A step, and when it began and ended."""

    name: str
    began: float
    ended: float


Span = tuple[float, float]


def exchanges(noted: Iterable[Step]) -> Iterator[Mapping[str, Span]]:
    """
    Each exchange's steps, from when broker had its request on: whole ones alone, each step once.

    They must have been made one after the other.
    """
    began: Step | None = None
    steps: list[Step] = []
    for step in sorted(noted, key=lambda step: step.began):
        if step.name == FIRST:
            if began and sorted(one.name for one in steps) == sorted(STEPS):
                yield {
                    NEXT: (step.began - began.began,) * 2,
                    **{one.name: (one.began - began.began, one.ended - began.began) for one in steps},
                }
            began, steps = step, []
        steps.append(step)


def medians(made: Sequence[Mapping[str, Span]]) -> Mapping[str, Span]:
    """When a step begins and ends, in the middle of all."""
    names = (*STEPS, NEXT)
    return {name: (median(one[name][0] for one in made), median(one[name][1] for one in made)) for name in names}


def chart(spans: Mapping[str, Span]) -> str:
    """The chart, as Mermaid draws it."""
    lines = [
        "gantt",
        "    title Hundredths of a millisecond since broker had the request",
        "    dateFormat x",
        "    axisFormat %Q",
    ]
    for service in ("broker", "consent", "vault"):
        lines.append(f"    section {service}")
        of_it = [name for name in STEPS if name.startswith(f"{service}.")]
        lines += [_bar(_said(name), spans[name]) for name in sorted(of_it, key=lambda name: spans[name])]
    lines.append("    section backend")
    lines += [_bar(said, (spans[one][1], spans[other][0])) for said, (one, other) in _BACKEND.items()]
    return "\n".join(lines)


def _said(name: str) -> str:
    """What a bar says: an RPC's name, or a statement's."""
    _, _, last = name.partition(".")
    return f"statement {last}" if last in STATEMENTS else last


def _bar(name: str, span: Span) -> str:
    began, ended = (round(moment * 100_000) for moment in span)
    return f"    {name} :{began}, {ended}"


def table(spans: Mapping[str, Span]) -> Table:
    """The same for those who would rather read."""
    shown = Table(title="One exchange by itself, ms")
    for column in ("step", "begins", "ends", "takes"):
        shown.add_column(column, justify="left" if column == "step" else "right")
    for name, (began, ended) in sorted(spans.items(), key=lambda item: item[1]):
        shown.add_row(name, *(f"{moment * 1000:.2f}" for moment in (began, ended, ended - began)))
    return shown


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long exchanges are made")
    options, say = parser.parse_args(), Console(stderr=True).print
    with scratch_directory() as root:
        say(f"  {options.customers:,} customers are made")
        stage, noted = Stage.at(root, options.customers), root / "steps"
        with process("tests.bench.steps", str(stage.home.root), str(noted)) as node:
            job = asyncio.run(stage.marketer(node.address))
            say("  they become known")
            found(job, kind="campaign", customers=options.customers)
            say("  one exchange after the other")
            found(job, kind="single", seconds=options.seconds / 2)
            with process("tests.bench.echo") as echo:
                bare = found(job, kind="echo", address=echo.address, seconds=2)["p50_ms"]
            found(job, kind="single", seconds=options.seconds / 2)
        made = [*exchanges(_read(noted))]
    assert made, "no exchange has every step once"
    spans = medians(made)
    Console().print(table(spans))
    print(f"Medians of {len(made):,} exchanges; a bare echo took {bare:.2f} ms.\n\n```mermaid\n{chart(spans)}\n```")


def _read(path: Path) -> Iterator[Step]:
    return (Step(*json.loads(line)) for line in path.read_text().splitlines())


if __name__ == "__main__":
    main()
