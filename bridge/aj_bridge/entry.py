"""The installed commands: `aj-bridge` and `ajc`, and one line where what they need was not installed.

A plain install is the SDK; the commands' libraries come with the extra `bridge`.
"""

import sys
from typing import NoReturn

__all__ = ["aj_bridge", "ajc"]


def aj_bridge() -> NoReturn:
    """Run `aj-bridge`."""
    _run("aj-bridge")


def ajc() -> NoReturn:
    """Run `ajc`."""
    _run("ajc")


def _run(name: str) -> NoReturn:
    try:
        from aj_bridge.faces.cli import main  # noqa: PLC0415 - not everybody has what it needs
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] in ("aj_bridge", "aj_sdk"):
            raise
        sys.exit(f"{name}: {err.name} is not installed; the commands need: pip install 'asyncjobs-nats[bridge]'")
    main.COMMANDS[name]()
