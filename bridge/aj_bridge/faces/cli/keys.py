"""`ajc key`: keys that sign and verify tasks."""

from pathlib import Path

import click

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Group, leaf, subgroup
from aj_sdk.keys import load_seed, new_seed, save_seed
from aj_sdk.wire.signing import Signer

__all__ = ["register"]

_JSON = click.option("--json", "-j", "as_json", is_flag=True, help="Print JSON.")


def register(root: Group) -> None:
    """Add the commands."""
    group = subgroup(root, "key", help="Make keys that sign tasks, and show those that verify them.")
    for command in (_add, _view):
        group.add_command(command)


@leaf(
    "add",
    "ajc key add signing.seed",
    "ajc key add ~/keys/signing.seed --json",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_JSON
def _add(*, file: Path, as_json: bool) -> None:
    """Make a signing key.

    Its seed goes into FILE, which must not be there yet; whoever has it can sign. The public key, which is printed, is
    what bridges verify with: `aj-bridge run --verify KEY`.
    """
    seed = new_seed()
    public = Signer(seed).public_key_hex
    save_seed(file, seed)
    if as_json:
        output.print_json({"seed_file": str(file), "public_key": public})
    else:
        click.echo(public)


@leaf(
    "view",
    "ajc key view signing.seed",
    "ajc key view ~/keys/signing.seed --json",
)
@click.argument("seed", metavar="SEED")
@_JSON
def _view(*, seed: str, as_json: bool) -> None:
    """Print the public key of a seed, which is hex text or a file with it."""
    public = Signer(load_seed(seed)).public_key_hex
    if as_json:
        output.print_json({"public_key": public})
    else:
        click.echo(public)
