"""The documents tell the truth: what they name exists, what they show runs, what is generated is fresh."""

import importlib
import re
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import parley_client
from parley.common.v1 import terms_pb2 as termspb
from parley_client import errors
from parley_rpc.metrics import DESCRIBED
from parley_terms.purposes import DPV, PURPOSES
from parley_terms.wire import terms_from
from tests.support.documents import DOCUMENTS, ROOT, anchors, blocks, inline_code, links
from tools.docs import commands, configuration, generated, protos

_GENERATED = generated()
_FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build"}  # what is made is there, or isn't
_VARIABLE = re.compile(r"PARLEY_[A-Z][A-Z_]*[A-Z]")
_OF_TESTS = {"PARLEY_SEED", "PARLEY_NODE", "PARLEY_SERVERS", "PARLEY_VECTORS", "PARLEY_DATA"}
_PYTHON = [block for document in DOCUMENTS for block in blocks(document, "python")]
_RUN_ELSEWHERE = {ROOT / "README.md", ROOT / "docs/sdk.md"}  # against a running Parley, in test_docs_run.py


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=_named)


@pytest.mark.parametrize("path", _GENERATED, ids=_named)
def test_generated_page_is_what_make_docs_writes(path: Path) -> None:
    assert _GENERATED[path] == path.read_text(encoding="utf-8"), "run `make docs`"


@each_document
def test_link_leads_somewhere(document: Path) -> None:
    dead = []
    for path, anchor in links(document):
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(f"{path}#{anchor}")
    assert [] == dead


@each_document
def test_named_path_exists(document: Path) -> None:
    named = [code for code in inline_code(document) if _is_path(code)]
    assert [] == [code for code in named if not (ROOT / code).exists()]


@each_document
def test_named_package_or_object_exists(document: Path) -> None:
    named = [code for code in inline_code(document) if re.fullmatch(r"(parley_\w+|tools)(\.\w+)*", code)]
    assert [] == [code for code in named if code not in DESCRIBED and not _importable(code)]


@each_document
def test_named_metric_exists(document: Path) -> None:
    """With labels or in an expression; alone it is seen to above."""
    named = [
        name for code in inline_code(document) for name in re.findall(r"\b(parley_[a-z_]+)(?=\{)|- (parley_\w+)$", code)
    ]
    assert [] == [name for pair in named for name in pair if name and name not in DESCRIBED]


@pytest.mark.parametrize("document", sorted(set(DOCUMENTS) - set(_GENERATED)), ids=_named)
def test_named_rpc_message_or_value_exists(document: Path) -> None:
    placeholders = {word for block in blocks(document, "console") for word in re.findall(r"\b[A-Z]{3,}\b", block.text)}
    codes = {code.partition(".")[0] for code in inline_code(document) if not _is_path(code)}
    words = [code for code in codes - placeholders if re.fullmatch(r"[A-Z][a-z]+[A-Za-z]*|[A-Z][A-Z]+(_[A-Z]+)*", code)]
    assert [] == sorted(word for word in words if not word.startswith(("PARLEY_", "GRPC_")) and word not in _words())


@each_document
def test_named_variable_exists(document: Path) -> None:
    named = set(_VARIABLE.findall(document.read_text(encoding="utf-8")))
    assert set() == named - configuration.names() - _OF_TESTS


@each_document
def test_named_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    typed = [line for block in blocks(document, "console") for line in block.commands]
    named = [line.split()[1] for line in [*inline_code(document), *typed] if re.match(r"make \w", line)]
    assert [] == [target for target in named if target not in targets]


@each_document
def test_named_command_exists_with_its_options(document: Path) -> None:
    assert [] == [code for code in inline_code(document) if _is_command(code) and not _exists(shlex.split(code))]


@each_document
def test_typed_command_is_complete(document: Path) -> None:
    for block in blocks(document, "console"):
        for line in filter(_is_command, block.commands):
            words = shlex.split(line)
            found = _command(words)
            assert found is not None, line
            # Raises what a reader would see.
            found.command.make_context(" ".join(found.words), words[len(found.words) :])


@pytest.mark.parametrize("block", _PYTHON, ids=lambda block: _named(block.document))
def test_python_block_runs(block: Any) -> None:
    if block.document not in _RUN_ELSEWHERE and not block.reason:
        exec(compile(block.text, str(block.document), "exec"), {})


def test_reason_that_a_comment_names_is_a_reason() -> None:
    said = [comment for service in protos.of_kind("service") for comment in service.members.values()]
    named = {code for comment in said for code in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", comment)}
    assert set() == named - _words()


def test_purposes_are_those_that_may_be_asked_for() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) days \| (\w+) \|$", _terms_page(), re.MULTILINE)
    said = {DPV + name: (int(days), level) for name, days, level in rows}
    assert said == {name: (caps.longest.days, caps.least_level.name) for name, caps in PURPOSES.items()}


def test_dials_are_supported_and_refused_as_the_page_says() -> None:
    rows = re.findall(
        r"^\| (content|mode): (?:form|channels|identity) \| (.*) \| (.*) \|$", _terms_page(), re.MULTILINE
    )
    said = {name: column for row in rows for column in (1, 2) for name in re.findall(r"`(\w+)`", row[column])}
    assert {name: 1 if _is_supported(name) else 2 for name in said} == said
    assert {*termspb.Form.keys(), *termspb.Channel.keys()} - said.keys() == {"FORM_UNSPECIFIED", "CHANNEL_UNSPECIFIED"}


def _terms_page() -> str:
    return (ROOT / "docs/terms.md").read_text(encoding="utf-8")


def _is_supported(name: str) -> bool:
    message = termspb.Terms()
    if name.startswith("FORM_"):
        message.content.fields.add(attribute="profile.age", form=termspb.Form.Value(name))
    elif name.startswith("CHANNEL_"):
        message.mode.channels.append(termspb.Channel.Value(name))
    else:
        message.mode.identity_level = termspb.IdentityLevel.Value(name)
    return not terms_from(message).unsupported


def _is_path(code: str) -> bool:
    if not re.fullmatch(r"[\w./-]+", code):
        return False
    return (code.partition("/")[0] in _FOLDERS and "/" in code) or code.endswith(".md")


def _importable(name: str) -> bool:
    module, _, rest = name.partition(".")
    try:
        found: Any = importlib.import_module(module)
        for part in filter(None, rest.split(".")):
            found = getattr(found, part, None) or importlib.import_module(f"{found.__name__}.{part}")
    except ImportError:
        return False
    return True


@cache
def _words() -> set[str]:
    """Words with a capital that documents may name: of the wire, of the SDK, of purposes, of google.rpc."""
    known = {
        *parley_client.__all__,
        *(name for name, kind in vars(errors).items() if isinstance(kind, type)),
        "BadRequest",
        "RetryInfo",
        "ErrorInfo",
        *(name.rpartition("#")[2] for name in PURPOSES),
    }
    for element in protos.elements():
        known |= {element.name.rpartition(".")[2], *element.members}
        known |= set(_without_prefixes(element)) | set(_quoted([element.comment, *element.members.values()]))
    return known | {"Field", "Consumer"}  # the two classes that decisions in docs/adr speak of


def _without_prefixes(element: protos.Element) -> Iterable[str]:
    """Values of an enum as people write them: ``CONSENT_STATE_ACTIVE`` is ACTIVE."""
    if element.kind == "enum":
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", element.name.rpartition(".")[2]).upper() + "_"
        yield from (value.removeprefix(prefix) for value in element.members)


def _quoted(comments: Iterable[str]) -> Iterable[str]:
    """Notices are texts on the wire, so only comments name them."""
    return re.findall(r"`(Consent[A-Z]\w+)`", " ".join(comments))


def _is_command(code: str) -> bool:
    return code.startswith("parley ")


def _command(words: list[str]) -> commands.Found | None:
    fitting = [found for found in commands.every_command() if words[: len(found.words)] == list(found.words)]
    return max(fitting, key=lambda found: len(found.words), default=None)


def _exists(words: list[str]) -> bool:
    """A command with options that it has; or the beginning of some."""
    found = _command(words)
    if found is None:
        known = words[:-1] if words[-1] == "--help" else words
        return any(list(each.words[: len(known)]) == known for each in commands.every_command())
    options = {spelling for each in found.command.params for spelling in (*each.opts, *each.secondary_opts)}
    return {word for word in words if word.startswith("--")} <= options | {"--help"}
