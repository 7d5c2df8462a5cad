"""`aj-bridge call`: one synthetic task straight to a responder, and all that crosses the wire."""

import time
from base64 import b64encode
from datetime import timedelta
from typing import Any, Final

import click

from aj_bridge.core.decision import Park
from aj_bridge.core.exits import EXIT_RETRY, EXIT_TERMINATE
from aj_bridge.core.retry import read_policy
from aj_bridge.core.settle import NoResponders
from aj_bridge.engine.router import EACH, Encoding, Invocation, Route
from aj_bridge.engine.single import Crossed, Single, call_once
from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Globals, leaf, signature_options, with_client
from aj_bridge.faces.cli.params import DURATION, payload_bytes
from aj_sdk.client import Client
from aj_sdk.handlers import Handler, listens_to
from aj_sdk.ids import new_id
from aj_sdk.wire.call import Completed
from aj_sdk.wire.interim import heartbeat_ns
from aj_sdk.wire.names import CATCH_ALL, DEFAULT_QUEUE, H_CONTENT_TYPE, TASK_JSON, check_name
from aj_sdk.wire.queue import DEFAULT_LEASE_NS
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.task import DEFAULT_MAX_TRIES, TaskRecord
from aj_sdk.wire.times import NS_PER_MS, format_time, to_timedelta_ns

__all__ = ["command"]

_EXIT_NOBODY: Final = 69
"""EX_UNAVAILABLE of sysexits.h."""

_SHOWN_TYPES: Final = 20
_LONGEST: Final = timedelta(days=366)


@signature_options(sign=True)
@leaf(
    "call",
    'aj-bridge call email:new \'{"to": "a@example.net"}\'',
    "aj-bridge call image:scale @picture.png --encoding msgpack --timeout 10s",
    "aj-bridge call report:month - --try 3 --json",
    "aj-bridge call email:new --route email:",
)
@click.argument("type")
@click.argument("payload", required=False)
@click.option("--timeout", type=DURATION, default="1m", show_default=True, help="How long the bridge would wait.")
@click.option(
    "--deadline", type=DURATION, help="The task's own deadline, from now; the handler only finds it in the task."
)
@click.option("--try", "try_", type=click.IntRange(1), default=1, show_default=True, help="Which try it is.")
@click.option(
    "--tries", type=click.IntRange(0), default=DEFAULT_MAX_TRIES, show_default=True, help="Tries; 0 for no limit."
)
@click.option("--queue", "-q", default=DEFAULT_QUEUE, show_default=True, help="Queue that the task is said to be from.")
@click.option("--id", "task_id", help="Id of the task; a new one when it is not given.")
@click.option(
    "--encoding",
    type=click.Choice([each.value for each in Encoding]),
    default=Encoding.JSON.value,
    show_default=True,
    help="How the task is written.",
)
@click.option(
    "--route",
    metavar="TYPE",
    help="The prefix that a bridge would send the type by, such as email:, or '' for the catch-all.",
)
@click.option("--backoff", default="default", show_default=True, metavar="NAME|SPEC", help="The bridge's backoff.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object.")
@with_client
async def command(
    client: Client,
    /,
    *,
    type: str,  # noqa: A002 - the argument's name
    payload: str | None,
    timeout: timedelta,  # noqa: ASYNC109 - of the call
    deadline: timedelta | None,
    try_: int,
    tries: int,
    queue: str,
    task_id: str | None,
    encoding: str,
    route: str | None,
    backoff: str,
    as_json: bool,
) -> None:
    """Call a responder as a bridge would, without a queue, and show all that crosses the wire.

    Nothing is stored, and nothing is tried again. PAYLOAD is sent as it is; @FILE reads a file, - standard input;
    without one the task has none. The last line says what a bridge would make of the reply. Interrupted, the responder
    is told to stop.

    \b
    Exit code 0   the task would be complete
              75  it failed, or nothing came in time: it would be tried again, or expired with the last try
              78  it would be terminated
              69  nobody listens
    """  # noqa: D301 - a backspace, which keeps click from joining the lines
    if not timedelta(0) < timeout <= _LONGEST:
        raise click.UsageError(f"--timeout lies between 0 and {_LONGEST.days} days")
    if deadline is not None and not timedelta(0) < deadline <= _LONGEST:
        raise click.UsageError("--deadline lies in the future: a bridge begins no call after it")
    if 0 < tries < try_:
        raise click.UsageError(f"--try {try_} is more than --tries {tries}")
    if route is not None and not type.startswith(route):
        raise click.UsageError(f"--route {route} does not take {type}: it is no beginning of it")
    policy = read_policy(backoff)
    now_ns = time.time_ns()
    record = TaskRecord(
        id=new_id() if task_id is None else check_name(task_id, "task id"),
        type=check_name(type, "task type"),
        queue=check_name(queue, "queue name"),
        state=TaskState.ACTIVE,
        payload=None if payload is None else payload_bytes(payload),
        created_ns=now_ns,
        deadline_ns=None if deadline is None else now_ns + to_timedelta_ns(deadline),
        max_tries=tries,
        tries=try_,
        tried_ns=now_ns,
    )
    settings = click.get_current_context().find_root().ensure_object(Globals)
    signer = settings.signer()
    invocation = Invocation(
        id=f"call-{new_id()}",
        task=record if signer is None else signer.sign(record),
        route=Route(type=EACH if route is None else route, encoding=Encoding(encoding)),
        run_time_ns=to_timedelta_ns(timeout),
        heartbeat_ns=heartbeat_ns(DEFAULT_LEASE_NS),
    )
    crossed: list[Crossed] = []

    def show(message: Crossed) -> None:
        crossed.append(message)
        if not as_json:
            _print(message, record if len(crossed) == 1 else None)

    single = await call_once(client.store.jetstream.transport, invocation, policy=policy, show=show)
    there = await client.admin.handlers.showing() if isinstance(single.outcome, NoResponders) else []
    if as_json:
        output.print_json(_map(single, crossed, there))
    else:
        click.echo(output.clean(_verdict(single, there, type)))
    raise click.exceptions.Exit(_code(single))


def _code(single: Single) -> int:
    if isinstance(single.outcome, NoResponders):
        return _EXIT_NOBODY
    state = _state(single)
    return {TaskState.COMPLETE: 0, TaskState.TERMINATED: EXIT_TERMINATE}.get(state, EXIT_RETRY)


def _state(single: Single) -> TaskState:
    record = single.decision.record
    assert record is not None  # what a call leaves is saved
    return record.state


def _verdict(single: Single, there: list[Handler], task_type: str) -> str:
    """Say in words what a bridge would do, as it does it."""
    record = single.decision.record
    assert record is not None
    if isinstance(single.outcome, NoResponders):
        return f"Nobody listens on {single.outcome.subject}; {_answering(there, task_type)}"
    after = f"after {single.took_s:.3f} s"
    if isinstance(single.decision, Park):
        delay = output.duration_text(max(0, single.decision.due_ns - time.time_ns()) // NS_PER_MS * NS_PER_MS)
        return f"{after} it failed, and would be tried again in about {delay}: {record.last_err}"
    if record.state is TaskState.EXPIRED:
        return f"{after} the last try failed, and the task would be expired: {record.last_err}"
    if record.state is TaskState.TERMINATED:
        return f"{after} it would be terminated: {record.last_err}"
    size = output.size_text(len(single.outcome.result)) if isinstance(single.outcome, Completed) else ""
    return f"{after} it would be complete, with a result of {size}"


def _answering(there: list[Handler], task_type: str) -> str:
    found = listens_to(there, task_type)
    if found is not None:
        return f"there are handlers of {found or CATCH_ALL}: try --route '{found}'"
    types = sorted({each.type or CATCH_ALL for each in there})
    if not types:
        return "no handler of any type shows itself"
    more = f" and {len(types) - _SHOWN_TYPES} more" if len(types) > _SHOWN_TYPES else ""
    return f"handlers are there of {', '.join(types[:_SHOWN_TYPES])}{more}"


def _print(message: Crossed, task: TaskRecord | None) -> None:
    if task is not None:
        head = f"-> {message.subject}"
    else:
        head = f"<- {message.after_s:.3f} s, {'interim reply' if message.interim else 'reply'}"
    click.secho(output.clean(head), bold=True)
    for name, value in message.headers.items():
        click.echo(output.clean(f"   {name}: {value}"))
    packed = task is not None and message.headers[H_CONTENT_TYPE] != TASK_JSON
    click.echo(
        output.clean(f"   {f'{len(message.body)} bytes of MessagePack' if packed else _body_text(message.body)}")
    )
    if task is not None and task.payload is not None:
        click.echo(output.clean(f"   payload: {output.payload_text(task.payload)}"))


def _body_text(body: bytes) -> str:
    return output.payload_text(body) if body else "no body"


def _map(single: Single, crossed: list[Crossed], there: list[Handler]) -> dict[str, Any]:
    request, *replies = crossed
    record = single.decision.record
    assert record is not None
    final = [each for each in replies if not each.interim]
    nobody = isinstance(single.outcome, NoResponders)
    due_ns = single.decision.due_ns if isinstance(single.decision, Park) and not nobody else None
    return {
        "request": {"subject": request.subject, **_message_map(request)},
        "interim": [_message_map(each) for each in replies if each.interim],
        "reply": _message_map(final[0]) if final else None,
        "state": None if nobody else record.state.value,
        "error": record.last_err,
        "tried_again_at": None if due_ns is None else format_time(due_ns),
        "seconds": round(single.took_s, 6),
        "nobody": nobody,
        "handlers": sorted({each.type for each in there}),
    }


def _message_map(message: Crossed) -> dict[str, Any]:
    try:
        body: dict[str, str] = {"body": message.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": b64encode(message.body).decode()}
    return {"seconds": round(message.after_s, 6), "headers": message.headers, **body}
