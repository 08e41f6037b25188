"""
Spans (OpenTelemetry). Imported only where a setting says where they go.

A span says which method, transaction or stream, how long, and how it ended. Nothing else: no argument, no text of an error, no
id of anybody.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from parley_kit.telemetry import Ended, Tracer, is_traceparent, traceparent

_MOST_LINKS = 64
_PATIENCE_S = 2


class Spans(Tracer):
    """
    Makes spans for a process called ``name`` and hands them to ``processor``.

    Where work stands is kept in :data:`parley_kit.telemetry.traceparent` alone: OpenTelemetry's own context isn't used.
    """

    on = True

    def __init__(self, name: str, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(resource=Resource({"service.name": name}), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("parley")

    def close(self) -> None:
        """Hand over what is left, and make no more. Blocks for a moment."""
        self._provider.shutdown()

    def span(self, name: str, /) -> AbstractContextManager[None]:
        """As :meth:`Tracer.span`."""
        return self._around(name, traceparent.get())

    def inside(self, name: str, /) -> AbstractContextManager[None]:
        """As :meth:`Tracer.inside`."""
        parent = traceparent.get()
        return self._around(name, parent) if parent else nullcontext()

    def linked(self, name: str, causes: Iterable[str], /, **numbers: int) -> AbstractContextManager[None]:
        """As :meth:`Tracer.linked`."""
        known = dict.fromkeys(cause for cause in causes if is_traceparent(cause))
        if not known:
            return nullcontext()
        links = [Link(_context(cause)) for cause in islice(known, _MOST_LINKS)]
        return self._around(name, "", SpanKind.CONSUMER, links=links, attributes=numbers)

    @contextmanager
    def served(self, method: str, parent: str, /) -> Iterator[Ended]:
        """As :meth:`Tracer.served`."""
        with self._call(method, parent, SpanKind.SERVER) as ended:
            yield ended

    @contextmanager
    def called(self, method: str, /) -> Iterator[Ended]:
        """As :meth:`Tracer.called`."""
        with self._call(method, traceparent.get(), SpanKind.CLIENT) as ended:
            yield ended

    @contextmanager
    def _call(self, method: str, parent: str, kind: SpanKind) -> Iterator[Ended]:
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        with self._entered(method, parent, kind, attributes=attributes) as span:

            def ended(status: str) -> None:
                span.set_attribute("rpc.response.status_code", status)
                if status != "OK":
                    span.set_status(StatusCode.ERROR)

            yield ended

    @contextmanager
    def _around(
        self,
        name: str,
        parent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        links: Iterable[Link] = (),
        attributes: Mapping[str, int] | None = None,
    ) -> Iterator[None]:
        with self._entered(name, parent, kind, links=links, attributes=attributes) as span:
            try:
                yield
            except BaseException:
                span.set_status(StatusCode.ERROR)
                raise

    @contextmanager
    def _entered(
        self,
        name: str,
        parent: str,
        kind: SpanKind,
        *,
        links: Iterable[Link] = (),
        attributes: Mapping[str, str | int] | None = None,
    ) -> Iterator[Span]:
        within = set_span_in_context(NonRecordingSpan(_context(parent)), Context()) if parent else Context()
        span = self._tracer.start_span(name, within, kind, attributes=attributes, links=list(links))
        before = traceparent.get()
        traceparent.set(_written(span.get_span_context()))
        try:
            yield span
        finally:
            traceparent.set(before)
            span.end()


def sending(endpoint: str, name: str) -> Spans:
    """Spans that are sent in batches, by a thread, to whoever takes OTLP over HTTP. Raises ImportError without extra `otel`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra

    return Spans(name, BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_PATIENCE_S)))


def _context(text: str) -> SpanContext:
    _version, trace, span, flags = text.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
