"""The handler process of the benches: answers every task of one type with a few bytes, on plain nats-py."""

import argparse
import asyncio
import signal

import nats
from nats.aio.msg import Msg

from aj_sdk.wire.names import HANDLER_QUEUE_GROUP, handler_subject


async def serve(server: str, task_type: str) -> None:
    """Answer until SIGTERM."""
    connection = await nats.connect(server)

    async def answer(message: Msg) -> None:
        await connection.publish(message.reply, b'{"ok":true}')

    await connection.subscribe(handler_subject(task_type), HANDLER_QUEUE_GROUP, cb=answer)
    await connection.flush()
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await connection.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--type", default="bench:echo")
    options = parser.parse_args()
    asyncio.run(serve(options.server, options.type))


if __name__ == "__main__":
    main()
