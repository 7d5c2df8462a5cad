"""The bridge that turns stored tasks into calls to handlers: what a program imports to run one inside itself."""

from aj_bridge.core.retry import RetryPolicy
from aj_bridge.engine.embedding import Bridge
from aj_bridge.engine.router import Handle, Invocation, Middleware, Outcome, Route, RouteKind, Router, chain
from aj_bridge.engine.spans import spans

__all__ = [
    "Bridge",
    "Handle",
    "Invocation",
    "Middleware",
    "Outcome",
    "RetryPolicy",
    "Route",
    "RouteKind",
    "Router",
    "chain",
    "spans",
]
