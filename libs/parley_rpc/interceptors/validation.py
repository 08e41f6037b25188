"""The innermost guard: bytes into a message that keeps its proto's rules."""

from google.protobuf.message import DecodeError

from parley_kit.faults import InvalidRequest, TooLarge
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.validate import validate


class Validation(Interceptor):
    """Parses and checks a request of ``max_bytes`` at the most."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer a good request. Raises TooLarge, and InvalidRequest with a violation per mistake."""
        if len(call.request) > self._max_bytes:
            raise TooLarge(f"The request is larger than {self._max_bytes:,} bytes: send less at a time.")
        try:
            call.request = call.rpc.decode(call.request)
        except DecodeError:
            raise InvalidRequest("The request can't be parsed as this method's message.") from None
        if violations := validate(call.request):
            raise InvalidRequest(violations=violations)
        return await proceed(call)
