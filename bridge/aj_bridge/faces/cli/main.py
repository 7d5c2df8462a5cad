"""The entry points of the installed commands; `python -m aj_bridge.faces.cli.main ajc ...` does the same."""

import sys
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from aj_bridge.faces.cli.frame import Group, root_group, run

__all__ = ["COMMANDS", "aj_bridge", "aj_bridge_group", "ajc", "ajc_group"]


def aj_bridge_group() -> Group:
    """Make the command `aj-bridge`."""
    from aj_bridge.faces.cli import bridge  # noqa: PLC0415 - ajc does without it

    group = root_group("aj-bridge", help="Runs asynchronous jobs on NATS JetStream.", debug_env="AJ_DEBUG")
    bridge.register(group)
    return group


def ajc_group() -> Group:
    """Make the command `ajc`."""
    from aj_bridge.faces.cli.ajc import build  # noqa: PLC0415 - aj-bridge does without it

    return build()


def aj_bridge() -> NoReturn:
    """Run `aj-bridge`."""
    run(aj_bridge_group())


def ajc() -> NoReturn:
    """Run `ajc`."""
    run(ajc_group())


COMMANDS: Final[Mapping[str, Callable[[], NoReturn]]] = {"aj-bridge": aj_bridge, "ajc": ajc}

if __name__ == "__main__":
    command = COMMANDS.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if command is None:
        sys.exit(f"usage: python -m aj_bridge.faces.cli.main {'|'.join(COMMANDS)} ...")
    del sys.argv[1]
    command()
