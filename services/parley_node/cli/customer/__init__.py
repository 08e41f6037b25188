"""`parley customer`: a customer's own acts."""

# Each part adds its commands, in the order in which the help lists them.
from parley_node.cli.customer import account, bank, rules, inbox, consents, history  # noqa: I001 - in the help's order
from parley_node.cli.customer.app import app

__all__ = ["account", "app", "bank", "consents", "history", "inbox", "rules"]
