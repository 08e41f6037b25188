"""Spans as tests look at them, wherever they came from: this process, or others that sent them (OTLP over HTTP)."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True)
class Seen:
    """One span. Ids are as W3C writes them; ``parent`` is empty for the first of a trace."""

    service: str
    name: str
    kind: str
    trace: str
    span: str
    parent: str
    links: frozenset[str]
    attributes: Mapping[str, Any]
    told: str
    """Texts beside the attributes: of events and of the status."""


def from_memory(spans: Iterable[ReadableSpan]) -> list[Seen]:
    """Spans of this process."""
    return [_from_memory(span) for span in spans]


def _from_memory(span: ReadableSpan) -> Seen:
    context = span.get_span_context()
    assert context is not None
    return Seen(
        service=str(span.resource.attributes["service.name"]),
        name=span.name,
        kind=span.kind.name,
        trace=f"{context.trace_id:032x}",
        span=f"{context.span_id:016x}",
        parent=f"{span.parent.span_id:016x}" if span.parent else "",
        links=frozenset(f"{link.context.trace_id:032x}" for link in span.links),
        attributes=dict(span.attributes or {}),
        told="".join([*(str(event) for event in span.events), span.status.description or ""]),
    )


@contextmanager
def collector() -> Iterator[tuple[str, list[Seen]]]:
    """Takes what is sent to an address for the length of a block: the address, and what came so far."""
    found: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            found.extend(_from_request(request))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", found
        finally:
            server.shutdown()
            thread.join()


def _from_request(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service=names["service.name"],
                    name=span.name,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=frozenset(link.trace_id.hex() for link in span.links),
                    attributes={each.key: each.value.string_value or each.value.int_value for each in span.attributes},
                    told="".join([*map(str, span.events), span.status.message]),
                )
