"""`ajc`: administration of tasks and queues, in the Go project's grammar."""

from typing import Final

import click

from aj_bridge.faces.cli import dead, keys, output, queues, tasks
from aj_bridge.faces.cli.frame import Group, completion_command, leaf, root_group, with_client
from aj_sdk.client import Client

__all__ = ["build"]

_NAME: Final = "ajc"


def build() -> Group:
    """Make the command."""
    root = root_group(_NAME, help="Asynchronous jobs on NATS JetStream: tasks and queues.", debug_env="AJC_DEBUG")
    root.add_command(_info)
    tasks.register(root)
    queues.register(root)
    dead.register(root)
    keys.register(root)
    root.add_command(completion_command(_NAME))
    return root


@leaf(
    "info",
    "ajc info",
    "ajc info --json --server nats://127.0.0.1:4222",
)
@click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
@with_client
async def _info(client: Client, /, *, as_json: bool) -> None:
    """Show the task store and all queues."""
    overview = await client.admin.overview()
    if as_json:
        output.print_json(output.overview_map(overview))
    else:
        output.print_overview(overview)
