"""What others wrote reaches no terminal raw: control characters, escapes of a terminal, bidi overrides, line ends."""

import asyncio
import json
import re
from typing import Final

import pytest
from click.testing import CliRunner
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from aj_bridge.faces.cli.main import aj_bridge_group, ajc_group
from aj_bridge.faces.embedded import EmbeddedServer
from aj_sdk import Client, Queue
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.transport import settle
from aj_sdk.wire.dead import DeadLetter, DeadReason
from aj_sdk.wire.state import TaskState

pytestmark = pytest.mark.acceptance

EVIL: Final = "a\x1b]0;owned\x07b\x1b[2J\r\nERROR forged\x00\x9b31m\u202egnp\u2066\u200fx"
RAW: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a terminal may obey. Ends of lines are ours; a forged one shows by a line that begins as EVIL's second does."""

GROUPS: Final = {"ajc": ajc_group(), "aj-bridge": aj_bridge_group()}


async def plant(client: Client, connection: Connection) -> None:
    """Leave hostile text wherever another party can write some."""
    await client.admin.ensure_task_store()
    await client.admin.create_queue(Queue("EMAIL"))
    await client.admin.ensure_everything()
    task = await client.enqueue("email:new", EVIL, queue="EMAIL", id="evil")
    stored = await client.store.load("evil")
    assert stored is not None
    ended = task.replace(state=TaskState.TERMINATED, last_err=EVIL, tries=1)
    await client.store.save(ended, expected=stored.sequence)
    letter = DeadLetter(
        reason=DeadReason.TERMINATED,
        detail=EVIL,
        queue="EMAIL",
        task_id="evil",
        task_type="email:new",
        tries=1,
        body=ended.to_wire(),
        at_ns=1,
    )
    await client.admin.dead.bury(letter)
    await client.enqueue("image:scale", b"\x1b[31m", queue="EMAIL", id="waits")

    async def answer(message: Msg) -> None:
        subject = "CHORIA_AJ.H.T.email:new"
        endpoint = {"name": EVIL, "subject": subject, "queue_group": EVIL, "metadata": {"aj.type": "email:new"}}
        endpoint["metadata"] |= {"aj.language": EVIL, "aj.sdk": EVIL}  # type: ignore[operator]
        verb = message.subject.split(".")[1].lower()
        body = {"name": "aj-bridge", "id": EVIL, "version": EVIL, "type": f"io.nats.micro.v1.{verb}_response"}
        await message.respond(json.dumps({**body, "metadata": {"x": EVIL}, "endpoints": [endpoint]}).encode())

    await connection.subscribe("$SRV.>", cb=answer)
    await connection.subscribe("AJ.BRIDGE.>", cb=answer)
    await settle(connection)


async def test_no_command_prints_raw_what_others_wrote(clean_server: EmbeddedServer) -> None:
    connection = await connect(ConnectOptions.from_url(clean_server.url))
    shown = {}
    async with Client.connect(clean_server.url) as client:
        await plant(client, connection)
        for command in (
            "ajc info",
            "ajc task view evil",
            "ajc task view evil --json",
            "ajc task list",
            "ajc task list --json",
            "ajc task retry evil --deadline 1ms",
            "ajc task cancel evil",
            "ajc queue list",
            "ajc queue info EMAIL",
            "ajc dead list",
            "ajc dead list --json",
            "ajc dead view evil",
            "aj-bridge ps --timeout 400ms",
            "aj-bridge ps --timeout 400ms --json",
            "aj-bridge handlers --timeout 400ms",
            "aj-bridge handlers --timeout 400ms --json",
            "aj-bridge doctor --after 10ms",
        ):
            program, *words = command.split()
            words = ["--server", clean_server.url, *words]
            done = await asyncio.to_thread(CliRunner().invoke, GROUPS[program], words)
            shown[command] = done.output
        for name, words in {
            "a hostile id": ["task", "view", EVIL],
            "a hostile queue": ["queue", "info", EVIL],
            "a hostile type": ["task", "add", EVIL, "x"],
        }.items():
            done = await asyncio.to_thread(CliRunner().invoke, GROUPS["ajc"], ["--server", clean_server.url, *words])
            shown[name] = done.output + str(done.exception or "")
    await connection.close()
    assert "forged" in shown["ajc task view evil"]
    assert {name: RAW.findall(text) for name, text in shown.items() if RAW.search(text)} == {}
    assert [name for name, text in shown.items() if re.search("^ERROR forged", text, re.MULTILINE)] == []
