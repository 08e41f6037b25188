"""
What is promised, left out: for a measurement of what each promise costs, and of what would be left without any.

``python -m tests.bench.run --only campaign --without signatures`` measures a Parley that signs nothing. What is left out is to be
left out in each process, before it works; the environment tells the others.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import parley_audit.ticking
import parley_bus.consumer
import parley_bus.relay
import parley_crypto.aead
import parley_crypto.signing
import parley_db.database
import parley_rpc.chain
import parley_rpc.validate
from parley_rpc.interceptors.access import Access
from parley_rpc.interceptors.validation import Validation

_VARIABLE = "PARLEY_BENCH_WITHOUT"
_SIGNATURE, _TAG, _SEAL = bytes(64), bytes(parley_crypto.aead.TAG), bytes(72)


def told() -> Sequence[str]:
    """What this process was told to leave out."""
    return os.environ.get(_VARIABLE, "").split()


def leave_out(names: Sequence[str]) -> None:
    """Leave promises out, here and in all processes that are started from here. Raises KeyError for one that isn't known."""
    os.environ[_VARIABLE] = " ".join(names)
    for name in names:
        PROMISES[name]()


def _signatures() -> None:
    """Nothing but the log's checkpoints is signed, and every other signature is believed."""
    signer: Any = parley_crypto.signing.Signer
    signer.sign = lambda _self, _message: _SIGNATURE
    _replace(parley_crypto.signing.verify, lambda _key, _message, _signature: None)


def _encryption() -> None:
    """What is stored and sent isn't encrypted. Keys are derived all the same, and lengths stay as they are."""
    sealer: Any = parley_crypto.signing.Sealer
    sealer.open = lambda _self, sealed: sealed[len(_SEAL) :]
    _replace(parley_crypto.aead.encrypt, lambda message, _aad, _nonce, _key: bytes(message) + _TAG)
    _replace(parley_crypto.aead.decrypt, lambda sealed, _aad, _nonce, _key: bytes(sealed[: -len(_TAG)]))
    _replace(parley_crypto.signing.seal, lambda _key, plaintext: _SEAL + plaintext)


def _checks() -> None:
    """No request is checked against its proto's rules."""
    _replace(parley_rpc.validate.validate, lambda _message: [])


def _guards() -> None:
    """Calls are read and their callers known: no deadlines, limits, measures or faults of their own."""
    chain: Any = parley_rpc.chain.Chain
    whole = chain.__init__

    def bare(self: Any, interceptors: Any) -> None:
        whole(self, [one for one in interceptors if isinstance(one, Access | Validation)])

    chain.__init__ = bare


def _log() -> None:
    """No event is carried to anybody, and nothing is logged; notes are written all the same."""

    async def idle(_self: Any) -> None:
        await asyncio.Event().wait()

    loops: Sequence[Any] = (parley_bus.relay.Relay, parley_bus.consumer.Consumer, parley_audit.ticking.Ticking)
    for loop in loops:
        loop.run = idle
    os.environ["PARLEY_CONSENT_AUDIT_LIMIT"] = "P1D"  # else nothing settles that the log hasn't heard of


def _durability() -> None:
    """What is committed may be lost."""
    parley_db.database._PLANS["synchronous_commit"] = "off"


PROMISES: dict[str, Callable[[], None]] = {
    "signatures": _signatures,
    "encryption": _encryption,
    "checks": _checks,
    "guards": _guards,
    "log": _log,
    "durability": _durability,
}
"""How each is left out."""


def _replace(function: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Put a function in another's place, wherever it was imported by its name."""
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if value is function:
                setattr(module, name, other)
