"""docs/configuration.md: every setting, from the docstrings of the services' Config classes."""

import ast
import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import parley_audit.config
import parley_broker.config
import parley_consent.config
import parley_identity.config
import parley_vault.config
from parley_client.settings import _VARIABLES as VARIABLES
from parley_node.embedded.external import POSTGRES_URL, VALKEY_URL
from parley_node.home import HOME
from parley_rpc.serving import Serving
from tools.docs import markdown

_CONFIGS: Mapping[str, type[BaseSettings]] = {
    "identity": parley_identity.config.Config,
    "vault": parley_vault.config.Config,
    "consent": parley_consent.config.Config,
    "broker": parley_broker.config.Config,
    "audit": parley_audit.config.Config,
}
_INTRO = """\
Parley is configured by environment variables. `parley up` makes keys, databases and files in its home and fills in every setting
that has no default below, so nothing has to be set to try it.

Secrets are never values of variables: a variable names a file, which must be readable by its owner only. Spans of time are
written as ISO 8601 durations (`PT90S`, `PT1H`, `P30D`) or as `H:MM:SS`."""
_COMMAND_LINE = (
    (HOME, "`~/.parley`", "The home: where keys, data and what people need to reach Parley are kept."),
    (POSTGRES_URL, "embedded", "PostgreSQL (15 or newer) to use instead of the embedded one; set both or neither."),
    (VALKEY_URL, "embedded", "Valkey (7.2 or newer) or Redis (7.0 or newer) to use; set both or neither."),
    (
        "PARLEY_FAULTS",
        "",
        "For tests, comma between: `POINT=sleep:SECONDS`, `=stop`, `=kill` (`@3`: third time), `SERVICE.clock=ahead:SECONDS`.",
    ),
)


_SERVE = """\
What a service that runs by itself is told beside its own settings. `parley up --split` fills in all of it."""


def page() -> str:
    """The page."""
    header = ("variable", "default", "meaning")
    line = markdown.table(header, [(f"`{name}`", *rest) for name, *rest in _COMMAND_LINE])
    sdk = markdown.table(
        ("variable", "meaning"), [(f"`{name}`", f"{_upper(what)}.") for name, what in VARIABLES.items()]
    )
    parts = [f"## The command line\n\n{line}", f"## The SDK\n\nAll are required.\n\n{sdk}"]
    parts.append(f"## parley serve\n\n{_SERVE}\n\n{markdown.table(header, _rows(Serving))}")
    parts += [f"## {name}\n\n{markdown.table(header, _rows(config))}" for name, config in _CONFIGS.items()]
    return markdown.page("Configuration", "the services' Config classes and the SDK's settings", _INTRO, *parts)


def names() -> set[str]:
    """Every variable on the page."""
    configs: list[type[BaseSettings]] = [Serving, *_CONFIGS.values()]
    services = {_variable(config, name) for config in configs for name in config.model_fields}
    return services | set(VARIABLES) | {name for name, *_ in _COMMAND_LINE}


def _rows(config: type[BaseSettings]) -> list[tuple[str, str, str]]:
    said = _docstrings(config)
    return [
        (f"`{_variable(config, name)}`", _default(info), said.get(name, ""))
        for name, info in config.model_fields.items()
    ]


def _variable(config: type[BaseSettings], name: str) -> str:
    return (config.model_config["env_prefix"] + name).upper()


def _default(info: FieldInfo) -> str:
    return "required" if info.is_required() else _written(info.get_default(call_default_factory=True))


def _written(value: Any) -> str:
    match value:
        case None:
            return "none"
        case timedelta():
            return f"`{_duration(value)}`"
        case _:
            return f"`{value}`"


def _duration(span: timedelta) -> str:
    """As ISO 8601 writes it, in its largest whole unit."""
    seconds = span.total_seconds()
    for unit, size, before in (("D", 86400, "P"), ("H", 3600, "PT"), ("M", 60, "PT")):
        if seconds and seconds % size == 0:
            return f"{before}{seconds / size:g}{unit}"
    return f"PT{seconds:g}S"


def _docstrings(config: type[BaseSettings]) -> dict[str, str]:
    """The string that follows each attribute: Python keeps it in the source only."""
    (tree,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        before.target.id: " ".join(str(after.value.value).split())
        for before, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
