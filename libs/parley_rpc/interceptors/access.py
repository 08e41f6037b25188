"""Who is calling, and whether they may."""

from structlog.contextvars import bind_contextvars

from parley_kit.faults import CallerNotAllowed, Unauthenticated
from parley_rpc import principal as principals
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.principal import ANYONE, Authenticator, Principal
from parley_rpc.zones import Zones


class Access(Interceptor):
    """
    Establishes the caller, then asks the zones.

    The caller is whom the channel declared (in one process, or by a certificate), else whom the one ``authorization`` entry
    proves, else anyone.
    """

    def __init__(self, authenticate: Authenticator, zones: Zones) -> None:
        self._authenticate = authenticate
        self._zones = zones

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer with the caller known. Raises Unauthenticated or CallerNotAllowed, the same for every argument."""
        principal = call.declared or self._identify(call)
        if not self._zones.allows(principal, call.rpc.path):
            raise Unauthenticated if principal.kind == "anyone" else CallerNotAllowed
        principals.remember(principal)
        # A customer's or marketer's id has no place in a log; a service's name has.
        bind_contextvars(caller=principal.id if principal.kind == "service" else principal.kind)
        return await proceed(call)

    def _identify(self, call: Call) -> Principal:
        tokens = sum(key == "authorization" for key, _ in call.metadata)
        if tokens == 0:
            return ANYONE
        if tokens > 1:
            raise Unauthenticated("More than one authorization entry: send exactly one.")
        return self._authenticate(call.metadata, call.rpc.service)
