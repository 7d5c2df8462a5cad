"""`aj-bridge schema`: what is stored and sent, as JSON Schemas; and whether a file keeps to them."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from aj_bridge.faces.checks import faults
from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Group, leaf, subgroup
from aj_schemas import SchemaNotFoundError, load, names

__all__ = ["guess", "register"]

_MAX_BYTES = 64 * 1024 * 1024
_MAX_ERRORS = 20


def register(group: Group) -> None:
    """Add the commands."""
    schema = subgroup(group, "schema", help="What is stored and sent, as JSON Schemas.")
    for command in (_list, _show, _validate):
        schema.add_command(command)


@leaf("list", "aj-bridge schema list", "aj-bridge schema list --json")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print a JSON list.")
def _list(*, as_json: bool) -> None:
    """List the schemas."""
    rows = [(name, str(load(name)["title"]), str(load(name)["description"])) for name in names()]
    if as_json:
        output.print_json([dict(zip(("name", "title", "description"), row, strict=True)) for row in rows])
        return
    width = max(len(name) for name, _, _ in rows)
    for name, _, description in rows:
        click.echo(f"{name:<{width}}  {description}")


@leaf("show", "aj-bridge schema show task", "aj-bridge schema show reply_headers > reply_headers.json")
@click.argument("name")
def _show(*, name: str) -> None:
    """Print a schema."""
    click.echo(json.dumps(_load(name), indent=2, ensure_ascii=False))


@leaf(
    "validate",
    "aj-bridge schema validate record.json",
    "nats stream get CHORIA_AJ_TASKS -S CHORIA_AJ.T.<id> -j | jq -r .data | base64 -d | aj-bridge schema validate -",
    "aj-bridge schema validate --schema work_item item.json",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--schema", "name", metavar="NAME", help="The schema; guessed from the keys when it is not given.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def _validate(ctx: click.Context, /, *, file: Path, name: str | None, as_json: bool) -> None:
    """Say whether a file with JSON keeps to a schema; `-` is standard input.

    Exit code 0 when it does, 1 when it does not, 2 when it is no JSON or nobody can tell what it should be.
    """
    value = _read(file)
    chosen = name or guess(value)
    if chosen is None:
        raise click.UsageError(f"{file} looks like none of the schemas: name one with --schema")
    _load(chosen)  # says which there are
    errors = faults(chosen, value)
    if as_json:
        found = [{"path": error.path, "message": error.message} for error in errors]
        output.print_json({"schema": chosen, "valid": not errors, "errors": found})
    elif not errors:
        click.echo(f"{file} is a valid {chosen}")
    else:
        for error in errors[:_MAX_ERRORS]:
            click.echo(output.clean(f"{file}: {error.path}: {error.message}"))
        if len(errors) > _MAX_ERRORS:
            click.echo(f"and {len(errors) - _MAX_ERRORS} more")
        click.echo(f"{file} is no valid {chosen}" + ("" if name else "; name another schema with --schema"))
    ctx.exit(1 if errors else 0)


def guess(value: object) -> str | None:
    """Say which schema a value is meant for: one whose required keys it has, and as many of the others as possible.

    Returns:
        None when it is no object, or has no key that a schema knows.
    """
    if not isinstance(value, dict):
        return None

    def fits(name: str) -> tuple[bool, int, int]:
        schema = load(name)
        known = len(set(schema["properties"]) & set(value))
        required: list[str] = schema.get("required", [])
        kind = schema["properties"].get("type", {}).get("const")
        whole = all(key in value for key in required) and kind in (None, value.get("type"))
        return whole, known, len(required)

    # One that asks for nothing takes anything: it must know a key at least.
    return max((name for name in names() if fits(name)[1]), key=fits, default=None)


def _load(name: str) -> Mapping[str, Any]:
    try:
        return load(name)
    except SchemaNotFoundError as err:
        raise click.UsageError(str(err)) from None


def _read(file: Path) -> object:
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
            data = source.read(_MAX_BYTES + 1)
    except OSError as err:
        raise click.UsageError(f"cannot read {file}: {err.strerror}") from err
    if len(data) > _MAX_BYTES:
        raise click.UsageError(f"{file} is larger than {_MAX_BYTES} bytes")
    try:
        return json.loads(data)
    except ValueError as err:
        raise click.UsageError(f"{file} is no JSON: {err}") from None
