"""Proto ⇄ domain."""

import json
from typing import Any

from parley.audit.v1 import audit_pb2 as auditpb
from parley.audit.v1 import audit_pb2_grpc
from parley_audit.commands import Happened, Proof, Reading
from parley_audit.domain import page_of
from parley_rpc.principal import caller


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """The RPCs of ``parley.audit.v1.AuditService``; their promises stand in the proto."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def GetProof(self, request: auditpb.GetProofRequest, _context: Any) -> auditpb.GetProofResponse:
        """Prove that a commitment is in the log."""
        return _proof(await self._reading.proof(request.commitment))

    async def GetCheckpoint(
        self, _request: auditpb.GetCheckpointRequest, _context: Any
    ) -> auditpb.GetCheckpointResponse:
        """Answer the newest checkpoint."""
        return auditpb.GetCheckpointResponse(checkpoint=(await self._reading.checkpoint()).decode())

    async def ListHistory(self, request: auditpb.ListHistoryRequest, _context: Any) -> auditpb.ListHistoryResponse:
        """Answer the customer's own history."""
        page = page_of(request.page_size, request.page_token)
        happened, token = await self._reading.history(caller().id, page)
        return auditpb.ListHistoryResponse(entries=map(_entry, happened), next_page_token=token)


def _proof(found: Proof) -> auditpb.GetProofResponse:
    return auditpb.GetProofResponse(
        proof=found.proof.to_bytes(),
        entry=found.placed.entry,
        index=found.placed.inner_index,
        size=found.placed.inner_size,
        path=found.placed.path,
    )


def _entry(happened: Happened) -> auditpb.HistoryEntry:
    entry = auditpb.HistoryEntry(
        kind=str(json.loads(happened.opening.detail).get("kind", "")),
        salt=happened.opening.salt,
        detail=happened.opening.detail,
        commitment=happened.row.commitment,
        log_index=happened.row.log_index,
    )
    entry.time.FromDatetime(happened.row.occurred_at)
    return entry
