"""How an application tests its handlers: enqueue, let the real bridge run them, see the outcome.

pytest examples/testing
"""

import pytest

from aj_sdk import Client, Queue, RetryLater, Services, Task, TaskFailedError, Terminate
from aj_sdk.blocking import Client as BlockingClient
from aj_sdk.testing.fixtures import StartBridge

services = Services()  # an application imports its own


@services.service("email:new")
async def send(task: Task, email: dict[str, str]) -> dict[str, object]:
    """Send an e-mail at the second try."""
    if not email.get("to"):
        raise Terminate("no address")
    if task.tries == 1:
        raise RetryLater(0.01, "busy")
    return {"sent": email["to"], "try": task.tries}


@pytest.mark.asyncio
async def test_it_is_sent_at_the_second_try(aj_client: Client, aj_bridge: StartBridge) -> None:
    """In the event loop of the test, which the handlers share."""
    async with aj_bridge(services, queues="EMAIL"):
        task = await aj_client.enqueue("email:new", {"to": "a@example.net"}, queue="EMAIL")
        assert await aj_client.result(task.id, timeout=10) == {"sent": "a@example.net", "try": 2}


def test_without_an_address_it_ends(aj_blocking_client: BlockingClient, aj_bridge: StartBridge) -> None:
    """Without an event loop: bridge and handlers run in a thread."""
    with aj_bridge(services, queues=Queue("EMAIL", max_tries=3)):
        task = aj_blocking_client.enqueue("email:new", {}, queue="EMAIL")
        with pytest.raises(TaskFailedError, match="no address"):
            aj_blocking_client.result(task.id, timeout=10)


def test_nothing_is_left_of_the_test_before(aj_blocking_client: BlockingClient) -> None:
    """Each test finds an empty server."""
    assert aj_blocking_client.admin.queue_names() == []
