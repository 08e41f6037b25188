"""What is left out of a measurement is really out: else it would seem to cost nothing, whatever it costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.without import PROMISES

_ROOT = Path(__file__).parents[2]
_HOLDS = {
    "signatures": """
from parley_crypto.jws import StatementInvalid, sign_statement, verify_statement
from parley_crypto.signing import Signer
def holds():
    mine, other = Signer(bytes(32)), Signer(b"1" * 32)
    try:
        return not verify_statement("card", sign_statement("card", {"a": "b"}, mine), {mine.key_id: other.public_key})
    except StatementInvalid:
        return True
""",
    "encryption": """
from parley_crypto.keyring import encrypt_value
from parley_crypto.release import seal
from parley_crypto.signing import Sealer
def holds():
    sealed = seal(Sealer(b"1" * 32).public_key, b"secret"), encrypt_value(bytes(32), 1, b"secret")
    return not any(b"secret" in one for one in sealed)
""",
    "checks": """
from parley.consent.v1.consent_pb2 import DecideRequest
from parley_rpc.interceptors import validation
def holds():
    return bool(validation.validate(DecideRequest()))
""",
    "guards": """
from parley_rpc.chain import Chain
from parley_rpc.interceptors.deadline import Deadline
def holds():
    return bool(Chain([Deadline()])._interceptors)
""",
    "log": """
import asyncio
from parley_audit.ticking import Ticking
from parley_bus.consumer import Consumer
from parley_bus.relay import Relay
def holds():
    return not any(is_idle(kind) for kind in (Consumer, Relay, Ticking))
def is_idle(kind):
    try:
        asyncio.run(asyncio.wait_for(kind.run(None), 0.01))
    except TimeoutError:
        return True
    except AttributeError:  # it set out to work, with nothing to work on
        return False
""",
    "durability": """
from parley_db import database
def holds():
    return database._PLANS.get("synchronous_commit") is None
""",
}
"""A question for each promise: whether a process keeps it. What it asks about is imported before anything is left out."""


@pytest.mark.parametrize("promise", PROMISES)
def test_promise_is_kept_until_it_is_left_out(promise: str) -> None:
    code = f"""{_HOLDS[promise]}
print(holds())
from tests.bench.without import leave_out
leave_out(["{promise}"])
print(holds())"""
    said = subprocess.check_output([sys.executable, "-c", code], cwd=_ROOT, text=True, timeout=60)
    assert ["True", "False"] == said.split()


def test_page_says_what_can_be_left_out() -> None:
    page = (_ROOT / "docs/performance.md").read_text(encoding="utf-8")
    said = page.partition("leaves a promise out, or several:")[2].partition("One run each")[0]
    assert set(PROMISES) == set(re.findall(r"`([a-z]+)`", said))
