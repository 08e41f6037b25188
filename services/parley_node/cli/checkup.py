"""`parley doctor`: prints what :mod:`parley_node.doctor` finds."""

import asyncio

import typer

from parley_node.cli import show
from parley_node.cli.options import HomeOption, JsonOption
from parley_node.doctor import Finding, State, examine
from parley_node.home import Home

app = typer.Typer(add_completion=False)


@app.command()
def doctor(*, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Check this home, one line a check; each failure ends in what mends it. Starts nothing and changes nothing."""
    findings = asyncio.run(_examine(Home.choose(home), shown=not as_json))
    if as_json:
        show.print_json([_row(finding) for finding in findings])
    if any(finding.state is State.FAILED for finding in findings):
        raise typer.Exit(1)


async def _examine(home: Home, *, shown: bool) -> list[Finding]:
    findings = []
    async for finding in examine(home):
        findings.append(finding)
        if shown:
            show.say(str(finding))  # as they come: one that hangs is waited for
    return findings


def _row(finding: Finding) -> show.Row:
    return {"check": finding.check, "state": str(finding.state), "found": finding.found, "mend": finding.mend}
