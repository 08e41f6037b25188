"""Facts that stop a request to vault."""

from parley_kit.faults import Code, Fault


class AttributeUnknown(Fault):
    """An attribute is not in the catalogue: see ListAttributes."""

    code, reason = Code.INVALID_ARGUMENT, "ATTRIBUTE_UNKNOWN"


class InvalidValue(Fault):
    """A value or question is not of its attribute's kind: see the field violations and ListAttributes."""

    code, reason = Code.INVALID_ARGUMENT, "VALUE_INVALID"


class ItemNotFound(Fault):
    """No item with this name is visible to you: see ListItems."""

    code, reason = Code.NOT_FOUND, "ITEM_NOT_FOUND"
