"""The innermost guard: bytes into a message that keeps its proto's rules."""

from google.protobuf.message import DecodeError

from parley_kit.faults import InvalidRequest
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.validate import validate


class Validation(Interceptor):
    """Parses and checks the request."""

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer a good request. Raises InvalidRequest with a violation per mistake."""
        try:
            call.request = call.rpc.decode(call.request)
        except DecodeError:
            raise InvalidRequest("The request can't be parsed as this method's message.") from None
        if violations := validate(call.request):
            raise InvalidRequest(violations=violations)
        return await proceed(call)
