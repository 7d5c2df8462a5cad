"""A secret in any kind of credentials is shown by no command, whatever fails and however much is logged."""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nkeys
import pytest
from click.testing import CliRunner

from aj_bridge.faces.cli.main import aj_bridge_group, ajc_group
from aj_bridge.faces.embedded import EmbeddedServer

pytestmark = pytest.mark.acceptance

MARK: Final = "hunter2-S3CR3T"
GROUPS: Final = {"ajc": ajc_group(), "aj-bridge": aj_bridge_group()}
COMMANDS: Final = (
    "ajc info",
    "ajc task add t x --queue NONE",
    "ajc task view nothing --json",
    "aj-bridge ps --timeout 200ms --json",
    "aj-bridge doctor --no-sweep",
    "aj-bridge run --queue NONE --log-level debug",
)


def seed() -> str:
    return str(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode())


def contexts(url: str, folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Return a context for each kind of credentials, with what must not be shown of it."""
    nkey, jwt_seed = seed(), seed()
    (folder / "user.nk").write_text(nkey)
    creds = f"-----BEGIN NATS USER JWT-----\n{MARK}\n------END NATS USER JWT------\n"
    creds += f"-----BEGIN USER NKEY SEED-----\n{jwt_seed}\n------END USER NKEY SEED------\n"
    (folder / "user.creds").write_text(creds)
    return {
        "URL": ({"url": url.replace("//", f"//user:{MARK}@")}, MARK),
        "PASSWORD": ({"url": url, "user": "user", "password": MARK}, MARK),
        "TOKEN": ({"url": url, "token": MARK}, MARK),
        "NKEY": ({"url": url, "nkey": str(folder / "user.nk")}, nkey),
        "CREDS": ({"url": url, "creds": str(folder / "user.creds")}, MARK),
        "SEED": ({"url": url, "creds": str(folder / "user.creds")}, jwt_seed),
        "BAD_NKEY": ({"url": url, "nkey": f"data:;base64,{MARK}"}, MARK),
        "BAD_URL": ({"url": f"nats://user:{MARK}@host:port:x"}, MARK),
    }


@pytest.mark.parametrize("taken", [True, False])
async def test_no_command_shows_a_secret_of_its_context(
    fresh_server: Callable[..., EmbeddedServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    taken: bool,
) -> None:
    # A server that asks nobody, and one that refuses all of these.
    config = {} if taken else {"authorization": {"users": [{"user": "other", "password": "other"}]}}
    server = fresh_server(config=config)
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    shown = {}
    for name, (context, secret) in contexts(server.url, tmp_path).items():
        (folder / f"{name}.json").write_text(json.dumps(context))
        for command in COMMANDS if taken else COMMANDS[::5]:
            program, *words = command.split()
            words = ["--context", name, "--debug", *words]
            done = await asyncio.to_thread(CliRunner().invoke, GROUPS[program], words)
            text = done.output + "".join(map(str, (done.exception, done.exception and done.exception.__cause__)))
            shown[name, command] = (text + caplog.text, secret)
            assert text, (name, command)
            assert taken or done.exit_code != 0
    assert [place for place, (text, secret) in shown.items() if secret in text] == []
