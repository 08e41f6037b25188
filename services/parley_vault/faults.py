"""Facts that stop a request to vault."""

from parley_kit.faults import Code, Fault


class ItemNotFound(Fault):
    """No item with this name is visible to you: see ListItems."""

    code, reason = Code.NOT_FOUND, "ITEM_NOT_FOUND"
