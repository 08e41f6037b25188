"""What is left out of a measurement is really out: else it would seem to cost nothing, whatever it costs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.without import PROMISES

_ROOT = Path(__file__).parents[2]
_PARTS = {
    "signatures": """
from parley_crypto.jws import StatementInvalid, sign_statement, verify_statement
from parley_crypto.signing import Signer
def parts():
    mine, other = Signer(bytes(32)), Signer(b"1" * 32)
    yield any(mine.sign(b""))
    try:
        yield not verify_statement("card", sign_statement("card", {"a": "b"}, mine), {mine.key_id: other.public_key})
    except StatementInvalid:
        yield True
""",
    "encryption": """
from parley_crypto.keyring import CiphertextInvalid, KeyRing
from parley_crypto.release import seal
from parley_crypto.signing import Sealer, SealInvalid
def parts():
    mine, other = Sealer(b"1" * 32), Sealer(b"2" * 32)
    wrapped, sealed = KeyRing({1: bytes(32)}, 1).wrap(b"secret"), seal(mine.public_key, b"secret")
    yield from (b"secret" not in wrapped, b"secret" not in sealed)
    for open_it in (lambda: KeyRing({1: b"1" * 32}, 1).unwrap(wrapped), lambda: other.open(sealed)):
        try:
            yield open_it() != b"secret"
        except (CiphertextInvalid, SealInvalid):
            yield True
""",
    "checks": """
from parley.consent.v1.consent_pb2 import DecideRequest
from parley_rpc.interceptors import validation
def parts():
    yield bool(validation.validate(DecideRequest()))
""",
    "guards": """
from parley_rpc.chain import Chain
from parley_rpc.interceptors.deadline import Deadline
def parts():
    yield bool(Chain([Deadline()])._interceptors)
""",
    "log": """
import asyncio
import os
from parley_audit.ticking import Ticking
from parley_bus.consumer import Consumer
from parley_bus.relay import Relay
def parts():
    yield "PARLEY_CONSENT_AUDIT_LIMIT" not in os.environ
    for kind in (Consumer, Relay, Ticking):
        try:
            asyncio.run(asyncio.wait_for(kind.run(None), 0.01))
        except TimeoutError:
            yield False
        except AttributeError:  # it set out to work, with nothing to work on
            yield True
""",
    "durability": """
from parley_db import database
def parts():
    yield "synchronous_commit" not in database._PLANS
""",
}
"""Questions for each promise: whether a process keeps its parts. They are imported before anything is left out."""


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
def test_promise_is_kept_until_it_is_left_out(promise: str) -> None:
    code = f"""{_PARTS[promise]}
print(set(parts()))
from tests.bench.without import leave_out
leave_out(["{promise}"])
print(set(parts()))"""
    said = subprocess.check_output([sys.executable, "-c", code], cwd=_ROOT, text=True, timeout=60)
    assert ["{True}", "{False}"] == said.split()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tests.bench.node", "tests.bench.client"])
def test_process_of_a_bench_leaves_out_what_it_is_told_to(module: str) -> None:
    told = os.environ | {"PARLEY_BENCH_WITHOUT": "nonsense"}
    ended = subprocess.run(
        [sys.executable, "-m", module], cwd=_ROOT, env=told, capture_output=True, text=True, check=False
    )
    assert "KeyError: 'nonsense'" in ended.stderr


def test_page_says_what_can_be_left_out() -> None:
    page = (_ROOT / "docs/performance.md").read_text(encoding="utf-8")
    said = page.partition("leaves something out, or several:")[2].partition("One run each")[0]
    assert set(PROMISES) == set(re.findall(r"`([a-z]+)`", said))
