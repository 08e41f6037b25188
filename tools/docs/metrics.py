"""docs/metrics.md: every metric, from where it is made."""

from parley_rpc.metrics import DESCRIBED
from tools.docs import markdown

_INTRO = """\
What a process counts, as Prometheus reads it. [operations.md](operations.md) says where it is served and what to watch. No label
holds anything of a customer, a marketer or an exchange: labels are names of services, methods, states and outcomes only."""


def page() -> str:
    """The page."""
    rows = [(f"`{name}`", markdown.code(labels), said) for name, (said, labels) in DESCRIBED.items()]
    return markdown.page(
        "Metrics", "`libs/parley_rpc/metrics.py`", _INTRO, markdown.table(("metric", "labels", "meaning"), rows)
    )
