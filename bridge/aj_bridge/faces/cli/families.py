"""`ajc task graph`: a task, what it waits for and what waits for it, as trees."""

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import leaf, with_client
from aj_sdk.client import Client
from aj_sdk.family import Family

__all__ = ["graph"]


@leaf(
    "graph",
    "ajc task graph report-2026-11",
    "ajc task graph report-2026-11 --waiting",
    "ajc task graph report-2026-11 --json",
)
@click.argument("task_id", metavar="ID")
@click.option("--waiting", is_flag=True, help="Of those that wait for it only the ones that have not ended: faster.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")
@with_client
async def graph(client: Client, /, *, task_id: str, waiting: bool, as_json: bool) -> None:
    """Draw what a task waits for, and what waits for it.

    Finding those that have ended reads the whole task store.
    """
    family = await client.admin.tasks.family(task_id, ended=not waiting)
    if as_json:
        output.print_json(_map(family))
        return
    above = _tree(family, family.parents, "waits for")
    below = _tree(family, family.children, "waited for by")
    if above is None and below is None:
        above = Tree(_label(family, task_id))
        above.add("waits for nothing, and nothing waits for it")
    for tree in (above, below):
        if tree is not None:
            output.print_tree(tree)
    if not family.complete:
        click.echo(f"There is more than what is shown: {len(family.tasks):,} tasks were followed", err=True)


def _tree(family: Family, near: Mapping[str, tuple[str, ...]], what: str) -> Tree | None:
    if not near.get(family.task_id):
        return None
    root = Tree(Text.assemble(_label(family, family.task_id), f", {what}"))
    drawn = {family.task_id}
    left = [(root, name) for name in reversed(near[family.task_id])]
    while left:
        branch, name = left.pop()
        label = _label(family, name)
        again = name in drawn and bool(near.get(name))
        twig = branch.add(Text.assemble(label, " (see above)") if again else label)
        if not again:
            drawn.add(name)
            left += [(twig, other) for other in reversed(near.get(name, ()))]
    return root


def _label(family: Family, name: str) -> Text:
    task = family.tasks.get(name)
    if task is None:
        return Text.assemble(output.clean(name), "  ", ("not found", "red"))
    return Text.assemble(output.clean(name), f"  {output.clean(task.type)}  ", output.state_text(task.state))


def _map(family: Family) -> dict[str, Any]:
    return {
        "id": family.task_id,
        "complete": family.complete,
        "tasks": [
            {
                "id": name,
                "type": None if task is None else task.type,
                "queue": None if task is None else task.queue,
                "state": None if task is None else task.state.value,
                "waits_for": list(family.parents.get(name, ())),
            }
            for name, task in family.tasks.items()
        ],
    }
