"""The one place where what was raised becomes what the caller is told."""

import asyncio

import grpc
from structlog.typing import FilteringBoundLogger

from parley_kit.faults import Code, Fault, Internal
from parley_kit.ids import new_id
from parley_rpc.chain import Call, Interceptor, Next, refuse
from parley_rpc.status import Unimplemented


class Faults(Interceptor):
    """
    A Fault answers as it says, a cancelled call stays cancelled, anything else is a defect.

    Of a defect the caller gets an error id, the log gets types and frames under that id, and nobody gets the text.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer, or end the call with a status."""
        try:
            return await proceed(call)
        except Fault as raised:
            fault, error_id = raised, self._report(raised) if raised.code is Code.INTERNAL else None
        except grpc.aio.AbortError:
            raise
        except NotImplementedError:
            # What generated base classes raise for a method left out. They have set a text without details before.
            fault, error_id = Unimplemented(), None
        except asyncio.CancelledError as cancelled:
            if _is_cancelled():
                raise
            # The handler met somebody else's cancellation. gRPC would send nothing, and the caller wait till its deadline.
            fault, error_id = Internal(), self._report(cancelled)
        except Exception as defect:  # noqa: BLE001 - the boundary: nothing may pass it unmapped
            fault, error_id = Internal(), self._report(defect)
        await refuse(call.context, fault, error_id)
        return None

    def _report(self, defect: BaseException) -> str:
        error_id = new_id()
        self._log.error("call_failed", error_id=error_id, exc_info=defect)
        return error_id


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
