"""Reading settings, and saying what is wrong with them without repeating what was given: it may be a secret."""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsError

T = TypeVar("T", bound=BaseSettings)

_OF_KUBERNETES = re.compile(r"(^|_)(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""How the variables end that it puts into every pod for each of its services, such as PARLEY_VAULT_CATALOGUE_PORT."""


class SettingsWrong(ValueError):
    """A setting in the environment can't be read. The message names it, and never what was given."""


def read_settings(kind: type[T], given: Mapping[str, Any] = MappingProxyType({})) -> T:
    """Settings: what is given, the environment for the rest. Raises SettingsWrong."""
    if misspelt := list(_misspelt(kind, os.environ)):
        raise SettingsWrong("; ".join(misspelt))
    try:
        return kind(**given)
    except SettingsError as error:  # it says: error parsing value for field "..." from source ...
        name = str(error).partition('"')[2].partition('"')[0]
        variable = (str(kind.model_config["env_prefix"]) + name).upper()
        raise SettingsWrong(f"{variable}: is no JSON") from None
    except ValidationError as error:
        prefix = str(kind.model_config["env_prefix"])
        raise SettingsWrong("; ".join(_wrong(prefix, each) for each in error.errors(include_input=False))) from None


def _wrong(prefix: str, error: ErrorDetails) -> str:
    variable = (prefix + "_".join(map(str, error["loc"]))).upper()
    remark = " (write durations as PT30S or 00:00:30)" if error["type"] == "time_delta_parsing" else ""
    return f"{variable}: {error['msg']}{remark}"


def _misspelt(kind: type[BaseSettings], environ: Mapping[str, str]) -> Iterator[str]:
    """What was meant for a setting and misses its name: only what comes close to one, as others set variables, too."""
    prefix = str(kind.model_config["env_prefix"]).upper()
    known = [name.upper() for name in kind.model_fields]
    for variable in environ:
        name = variable.upper().removeprefix(prefix)
        if variable.upper() != prefix + name or name in known or _OF_KUBERNETES.search(name):
            continue
        if near := get_close_matches(name, known, 1, 0.8):
            yield f"{variable}: no such setting; {prefix}{near[0]} is one"
