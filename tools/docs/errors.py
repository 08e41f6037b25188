"""docs/errors.md: why calls are refused, and what to do about it."""

from collections.abc import Iterable, Mapping

import parley_node.node  # noqa: F401 - all services, and so all faults
from parley_kit import faults
from tools.docs import markdown, protos

_PREFIX = "ERROR_REASON_"
_INTRO = """\
Every error is a `google.rpc.Status`. Its details hold a `google.rpc.ErrorInfo` with the domain `parley` and a reason from this
table. The reason is for programs and stays the same between releases. The message is for people and may change; it says the next
step. Where fields are wrong, a `google.rpc.BadRequest` names them. Where a retry helps, a `google.rpc.RetryInfo` names the delay.

No message, reason or detail holds a value, a name or an address. What the caller may not see and what is not there get the very
same answer.

The SDK raises one class for each reason: `CONSENT_NOT_FOUND` is `parley_client.errors.ConsentNotFound`."""
_OUTRO = """\
A reason without a code fails no call: it is an outcome within an answer.

An error without such a detail comes from gRPC itself or from something between you and Parley."""


def page() -> str:
    """The page."""
    (reasons,) = (each for each in protos.of_kind("enum") if each.name == "parley.common.v1.ErrorReason")
    codes = _codes(_all(faults.Fault))
    rows = [
        _row(name.removeprefix(_PREFIX), comment, codes)
        for name, comment in reasons.members.items()
        if name != f"{_PREFIX}UNSPECIFIED"
    ]
    found = markdown.table(("reason", "gRPC code", "cause", "remedy"), rows)
    return markdown.page(
        "Errors", "`protos/parley/common/v1/error_reason.proto` and the services' faults", _INTRO, found, _OUTRO
    )


def _row(reason: str, comment: str, codes: Mapping[str, str]) -> tuple[str, ...]:
    cause, _, remedy = comment.partition(". ")
    if not remedy:
        raise ValueError(f"{reason}: its comment says what is wrong, and not what to do about it")
    return f"`{reason}`", codes.get(reason, ""), cause.removesuffix(".") + ".", remedy


def _codes(kinds: Iterable[type[faults.Fault]]) -> dict[str, str]:
    """The code of each reason that a call can fail with."""
    return {
        kind.reason: kind.code.name
        for kind in kinds
        if kind.__module__.startswith("parley_") and "reason" in vars(kind)
    }


def _all(kind: type[faults.Fault]) -> Iterable[type[faults.Fault]]:
    for each in kind.__subclasses__():
        yield each
        yield from _all(each)
