"""What is counted of calls. No label ever holds anything of a caller but its kind of answer."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """
    Calls served, counted in a registry of the owner's own.

    ``parley_rpc_calls_total{method, code}`` and ``parley_rpc_duration_seconds{method}``, where ``method`` is
    ``package.Service/Method``, only ever one that is served, and ``code`` a gRPC status by name.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter("parley_rpc_calls", "Calls answered.", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "parley_rpc_duration_seconds",
            "Time to answer a call.",
            ["method"],
            registry=registry,
            buckets=_SECONDS,
        )

    def answered(self, method: str, code: str, seconds: float) -> None:
        """Count one call that ended with the gRPC status ``code`` (its name) after ``seconds``."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)
