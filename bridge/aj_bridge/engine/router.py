"""Which route a task type takes: the exact one, else the longest prefix, else the catch-all.

As in the Go project's mux.go each route is also a prefix: `email:new` takes `email:newsletter` where nothing longer
does. Without explicit routes each type takes the route of its own name.
"""

from collections.abc import Iterable

from aj_sdk.errors import DuplicateHandlerError
from aj_sdk.wire.names import check_name

__all__ = ["Router"]


class Router:
    """Routes to remote handlers.

    Args:
        routes: exact types, prefixes, and `""` for the catch-all; none = each type by itself.

    Raises:
        InvalidNameError: a route is not a type.
        DuplicateHandlerError: a route is there twice.
    """

    def __init__(self, routes: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        for route in routes:
            if route:
                check_name(route, "task type")
            if route in self._exact:
                raise DuplicateHandlerError(route)
            self._exact.add(route)
        self._longest_first = sorted(self._exact, key=lambda route: (-len(route), route))

    @property
    def explicit(self) -> bool:
        """Whether only some types have a route."""
        return bool(self._exact)

    def route(self, task_type: str) -> str | None:
        """Return the route of a task type, None when it has none."""
        if not self._exact or task_type in self._exact:
            return task_type
        return next((route for route in self._longest_first if task_type.startswith(route)), None)
