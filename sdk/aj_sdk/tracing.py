"""The trace context that OpenTelemetry holds in this process, where a program uses it.

Nothing is imported for a program that does not: who has not loaded `opentelemetry.trace` has no span.
"""

import contextvars
import importlib
import sys
from typing import Any, Final

from aj_sdk.errors import UsageError
from aj_sdk.wire.trace import NO_TRACE, Trace, record_trace, trace_fault

__all__ = ["chosen_trace", "context_within", "current_trace"]

_API: Final = "opentelemetry.trace"


def current_trace() -> Trace:
    """Return the trace context of the current span; an empty one where there is none."""
    if _API not in sys.modules:
        return NO_TRACE
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return record_trace(carrier)[0]


def chosen_trace(parent: str | None, state: str | None) -> Trace:
    """Return the trace context of a new task.

    Args:
        parent: a `traceparent`; empty for none; None, with no state either, for that of the current span.
        state: the `tracestate` that goes with it.

    Raises:
        UsageError: it is malformed.
    """
    if parent is None and state is None:
        return current_trace()
    if not parent and state:
        raise UsageError("a tracestate goes with a traceparent")
    if parent and (fault := trace_fault(parent, state or "")):
        raise UsageError(fault)
    return Trace(parent or "", state or "")


def context_within(trace: Trace) -> contextvars.Context | None:
    """Return a copy of this context in which the span that a trace context names is the current one.

    None where there is nothing to go on with: then the context may stay as it is.
    """
    if not trace or _API not in sys.modules:
        return None
    context = contextvars.copy_context()
    api = importlib.import_module("opentelemetry.context")
    context.run(lambda: api.attach(_propagator().extract(trace.to_map())))
    return context


def _propagator() -> Any:
    # Not the program's own choice of propagators: what a task carries is W3C.
    module = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
    return module.TraceContextTextMapPropagator()
