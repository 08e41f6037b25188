"""Messages for human eyes, without what their protos mark as sensitive."""

from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from parley.common.v1 import options_pb2


def safe_repr(message: Message) -> str:
    """
    One line of text format, without sensitive fields at any depth; unknown ones, which might be, it never shows.

    The message itself stays as it is.
    """
    shown = type(message)()
    shown.CopyFrom(message)
    _blank(shown)
    return f"{message.DESCRIPTOR.full_name}({text_format.MessageToString(shown, as_one_line=True)})"


def _blank(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[options_pb2.rules].sensitive:
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for child in _children(field, value):
                _blank(child)


def _children(field: FieldDescriptor, value: Any) -> list[Message]:
    if not field.is_repeated:
        return [value]
    values = value.values() if hasattr(value, "values") else value  # a map by its values
    return [child for child in values if isinstance(child, Message)]
