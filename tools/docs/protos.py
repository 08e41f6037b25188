"""The protos with their comments, which are the API's documentation."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped] # it ships no types

PROTOS = Path(__file__).parents[2] / "protos"

_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # numbers of FileDescriptorProto's fields, which paths of comments are made of
_FIELD, _VALUE, _METHOD = 2, 2, 2


@dataclass(frozen=True, slots=True)
class Element:
    """A service, message or enum: full name, comment, and its methods, fields or values with theirs."""

    kind: str
    name: str
    comment: str
    members: Mapping[str, str]


class Named(Protocol):
    """A method, field or value."""

    @property
    def name(self) -> str:
        """Its name."""


@cache
def elements() -> tuple[Element, ...]:
    """Everything at the top of any of our protos, in order of file and place. Raises OSError if they don't compile."""
    return tuple(element for file in _files() for element in _elements(file))


def of_kind(kind: str) -> list[Element]:
    """All services, messages or enums."""
    return [element for element in elements() if element.kind == kind]


def first_sentence(comment: str) -> str:
    """The summary that a comment begins with."""
    return comment.partition(". ")[0].removesuffix(".") + "."


def _files() -> Sequence[FileDescriptorProto]:
    with tempfile.NamedTemporaryFile() as out:
        ours = sorted(str(path) for path in PROTOS.rglob("*.proto"))
        well_known = str(files("grpc_tools") / "_proto")
        options = ["--include_source_info", f"--descriptor_set_out={out.name}"]
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *options, *ours]) != 0:
            raise OSError("the protos don't compile: see the messages above")
        return FileDescriptorSet.FromString(Path(out.name).read_bytes()).file


def _elements(file: FileDescriptorProto) -> Iterator[Element]:
    comments = {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
        if place.leading_comments
    }
    kinds: Sequence[tuple[str, int, int, Sequence[tuple[str, Sequence[Named]]]]] = (
        ("service", _SERVICE, _METHOD, [(each.name, each.method) for each in file.service]),
        ("message", _MESSAGE, _FIELD, [(each.name, each.field) for each in file.message_type]),
        ("enum", _ENUM, _VALUE, [(each.name, each.value) for each in file.enum_type]),
    )
    for kind, number, inner, found in kinds:
        for index, (name, members) in enumerate(found):
            said = {member.name: comments.get((number, index, inner, at), "") for at, member in enumerate(members)}
            yield Element(kind, f"{file.package}.{name}", comments.get((number, index), ""), said)
