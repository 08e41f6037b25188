"""Reading settings, and saying what is wrong with them without repeating what was given: it may be a secret."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsError

T = TypeVar("T", bound=BaseSettings)


class SettingsWrong(ValueError):
    """A setting in the environment can't be read. The message names it, and never what was given."""


def read_settings(kind: type[T], given: Mapping[str, Any] = MappingProxyType({})) -> T:
    """Settings: what is given, the environment for the rest. Raises SettingsWrong."""
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
