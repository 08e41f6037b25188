"""
The pages of ``docs/`` that are generated, each from the one place where its facts stand.

``make docs`` writes them; a test fails while one of them differs from what it is generated from.
"""

from pathlib import Path

from tools.docs import commands, configuration, errors, events, metrics, zones

ROOT = Path(__file__).parents[2]

_PAGES = {
    "trust-zones.md": zones.page,
    "errors.md": errors.page,
    "events.md": events.page,
    "configuration.md": configuration.page,
    "cli.md": commands.page,
    "metrics.md": metrics.page,
}


def generated() -> dict[Path, str]:
    """Every generated page by its path, as it should read."""
    return {ROOT / "docs" / name: page() for name, page in _PAGES.items()}
