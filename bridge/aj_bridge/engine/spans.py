"""A span for each call of a handler, in the trace of its task; for a process that uses OpenTelemetry.

Nothing is imported for one that does not: whoever has not loaded `opentelemetry.trace` gets no middleware.
"""

import importlib
import sys
from typing import Any, Final

import msgspec

from aj_bridge.engine.router import Handle, Invocation, Middleware, Nobody, Outcome
from aj_sdk.wire.call import Completed
from aj_sdk.wire.trace import record_trace

__all__ = ["spans"]

_API: Final = "opentelemetry.trace"


def spans(provider: Any = None) -> tuple[Middleware, ...]:
    """Return the middleware that makes a span of each call, for a router or a route; none without OpenTelemetry.

    The span is a child of the one that the task's producer named, and the parent of what the handler makes: its
    context is what the call carries on. It has the attributes of a message that is processed, and the error of a call
    that failed. A call that found no handler leaves none.

    Args:
        provider: an OpenTelemetry tracer provider; None for the global one of the process.
    """
    if _API not in sys.modules:
        return ()
    api = importlib.import_module(_API)
    w3c = importlib.import_module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()
    tracer = api.get_tracer("aj_bridge", tracer_provider=provider)

    async def traced(invocation: Invocation, following: Handle) -> Outcome:
        task = invocation.task
        span = tracer.start_span(
            f"process {task.type}",
            context=w3c.extract(invocation.trace.to_map()),
            kind=api.SpanKind.CONSUMER,
            attributes={
                "messaging.system": "asyncjobs",
                "messaging.operation.type": "process",
                "messaging.destination.name": task.queue,
                "messaging.message.id": task.id,
                "asyncjobs.task.type": task.type,
                "asyncjobs.task.try": task.tries,
                "asyncjobs.invocation": invocation.id,
            },
        )
        carrier: dict[str, str] = {}
        w3c.inject(carrier, api.set_span_in_context(span))
        trace, _ = record_trace(carrier)
        try:
            outcome = await following(msgspec.structs.replace(invocation, trace=trace or invocation.trace))
        except Nobody:
            raise  # a span that is not ended is not exported
        except BaseException as err:
            _fail(api, span, str(err) or type(err).__name__)
            span.end()
            raise
        if not isinstance(outcome, Completed):
            _fail(api, span, outcome.error)
        span.end()
        return outcome

    return (traced,)


def _fail(api: Any, span: Any, error: str) -> None:
    span.set_status(api.Status(api.StatusCode.ERROR, error))
