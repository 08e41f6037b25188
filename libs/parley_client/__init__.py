"""
The SDK: what a marketer's backend installs to ask customers through Parley, with none of the server's dependencies.

It signs in, retries, resumes, opens what was sealed to the marketer's key, and checks every signature and receipt against
keys and a policy that the marketer pinned. It trusts the broker with nothing.
"""

from parley_client.client import Answer, Client
from parley_client.conditions import Attribute, Condition, Question, attribute
from parley_client.deliveries import Delivery, Kind, Notice, Release
from parley_client.exchanges import Exchange, ExchangeState
from parley_client.receipts import Receipt
from parley_client.settings import Settings

__all__ = [
    "Answer",
    "Attribute",
    "Client",
    "Condition",
    "Delivery",
    "Exchange",
    "ExchangeState",
    "Kind",
    "Notice",
    "Question",
    "Receipt",
    "Release",
    "Settings",
    "attribute",
]
