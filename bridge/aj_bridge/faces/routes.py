"""Routes as a configuration has them: the tables `[[route]]` of a file, and the router of a bridge made of all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aj_bridge.core.retry import RetryPolicy
from aj_bridge.engine.commands import check_command
from aj_bridge.engine.router import EACH, Encoding, Route, RouteKind, Router
from aj_bridge.engine.spans import spans
from aj_bridge.faces.kinds import Kind, backoff, choice, number, text
from aj_bridge.faces.options import ConfigFile, merge, option, options_of
from aj_sdk.errors import UsageError
from aj_sdk.services import Service, load_services
from aj_sdk.wire.names import check_name

__all__ = ["ROUTE_OPTIONS", "ROUTE_TYPE", "RouteConfig", "make_router", "read_routes"]


def _route_type(given: str) -> str:
    return given if given in ("", EACH) else check_name(given, "task type")


ROUTE_TYPE: Final = Kind("TYPE", _route_type)
"""A task type, a prefix, the empty text for the catch-all, `*` for each type by its own name."""


@dataclass(frozen=True, kw_only=True)
class RouteConfig:
    """One table `[[route]]`."""

    type: str | None = option(
        ROUTE_TYPE,
        'Task type, a prefix such as `email:`, `""` for all types, `*` for each by its own name',
        default=None,
    )
    kind: str = option(
        choice(tuple(RouteKind)),
        "Who handles its tasks; without it what `command` or `app` say, else remote",
        default="",
    )
    command: str = option(text("PATH"), "Executable file that handles a task", default="")
    app: str = option(text("MODULE[:NAME]"), "Python module with the `Services` that handle the type", default="")
    backoff: RetryPolicy | None = option(  # noqa: RUF009 - a field's declaration, frozen as the others
        backoff(), "How long a failed task waits; without it the bridge's", default=None
    )
    concurrency: int | None = option(
        number(1, 100_000),
        "Tasks of this route that the bridge has handled at a time; without it no limit",
        default=None,
    )
    encoding: str = option(
        choice(tuple(Encoding)), "How a task is written for a remote handler", default=Encoding.JSON.value
    )


ROUTE_OPTIONS: Final = options_of(RouteConfig)


def read_routes(file: ConfigFile, faults: list[str]) -> tuple[RouteConfig, ...]:
    """Read the tables `[[route]]` of a configuration file; what is wrong goes to `faults`."""
    tables = file.values.get("route", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append(f"{file.where('route')}: must be tables, each headed [[route]]")
        return ()
    routes = []
    for number_, table in enumerate(tables, 1):
        # Its keys are named with the table that they stand in.
        found = merge(ROUTE_OPTIONS, ConfigFile(Path(f"{file.path}: route {number_}"), table, {}), {}, {})
        faults.extend(found.faults)
        if found.values["type"] is None and not found.faults:
            faults.append(f"{file.path}: route {number_}: has no type")
        elif not found.faults:
            routes.append(RouteConfig(**found.values))
    return tuple(routes)


def make_router(
    remote: Iterable[str], commands: Iterable[tuple[str, str]], apps: Iterable[str], tables: Sequence[RouteConfig]
) -> Router:
    """Make the router of a bridge; imports the modules, and looks at the commands.

    Where the process uses OpenTelemetry (`opentelemetry-instrument aj-bridge run`), each call is a span.

    Raises:
        UsageError: a route is there twice, a command can't be executed, or a module has no such handlers.
    """
    routes = [Route(type=each) for each in remote]
    routes += [Route(type=each, kind=RouteKind.COMMAND, command=check_command(path)) for each, path in commands]
    for app in apps:
        services = load_services(app)
        if not len(services):
            raise UsageError(f"app {app}: no handlers are registered there")
        routes += [Route.to(each) for each in services]
    routes += [_route(table) for table in tables]
    return Router(routes, spans())


def _route(table: RouteConfig) -> Route:
    assert table.type is not None
    said: dict[RouteKind, Any] = {RouteKind.COMMAND: table.command, RouteKind.FUNCTION: table.app}
    implied = [kind for kind, value in said.items() if value]
    if len(implied) > 1 or (table.kind and implied and table.kind != implied[0]):
        raise UsageError(f"route {table.type or 'catchall'}: kind, command and app contradict each other")
    kind = RouteKind(table.kind or (implied[0] if implied else RouteKind.REMOTE))
    if kind is not RouteKind.REMOTE and not implied:
        raise UsageError(
            f"route {table.type or 'catchall'}: kind {kind} needs {'app' if kind is RouteKind.FUNCTION else 'command'}"
        )
    return Route(
        type=table.type,
        kind=kind,
        command=check_command(table.command) if table.command else None,
        service=_service(table.app, table.type) if table.app else None,
        policy=table.backoff,
        concurrency=table.concurrency,
        encoding=Encoding(table.encoding),
    )


def _service(app: str, task_type: str) -> Service:
    services = load_services(app)
    for service in services:
        if service.route == task_type:
            return service
    names = ", ".join(service.shown for service in services) or "none"
    raise UsageError(f"app {app}: no handler is registered for {task_type or 'catchall'}; there are {names}")
