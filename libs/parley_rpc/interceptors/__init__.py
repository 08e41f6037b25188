"""The guards that every call passes, one file each, in the order of ``standard``."""

from structlog.typing import FilteringBoundLogger

from parley_kit.clock import Clock
from parley_kit.telemetry import SILENT, Tracer
from parley_rpc.chain import Chain
from parley_rpc.interceptors.access import Access
from parley_rpc.interceptors.arrival import Arrival
from parley_rpc.interceptors.clocks import Clocks
from parley_rpc.interceptors.deadline import Deadline
from parley_rpc.interceptors.faults import Faults
from parley_rpc.interceptors.leaving import Leaving
from parley_rpc.interceptors.limits import Limits
from parley_rpc.interceptors.measure import Measure
from parley_rpc.interceptors.traced import Traced
from parley_rpc.interceptors.validation import Validation
from parley_rpc.metrics import Metrics
from parley_rpc.principal import Authenticator
from parley_rpc.zones import Zones


def standard(
    *,
    authenticate: Authenticator,
    clock: Clock,
    zones: Zones,
    metrics: Metrics,
    log: FilteringBoundLogger,
    max_request_bytes: int,
    tracer: Tracer = SILENT.tracer,
    leaving: Leaving | None = None,
) -> Chain:
    """
    The chain of every Parley server, outermost first.

    Permission comes before parsing and before existence, so a refusal reveals neither. What a caller may have under way is
    counted once it is known who calls, and a call that is refused for it costs no more than that. Where streams are answered,
    ``leaving`` ends them.
    """
    return Chain(
        [
            Arrival(),
            *([Traced(tracer)] if tracer.on else []),
            Measure(metrics),
            Faults(log),
            Access(authenticate, zones),
            Clocks(clock, log),
            Limits(),
            *([leaving] if leaving else []),
            Deadline(),
            Validation(max_request_bytes),
        ]
    )
