"""A producer without an event loop, as a script or a view of Django or Flask is one: python examples/script.py.

It needs what `producer.py` needs: a NATS server, a bridge of the queue EMAIL, and the handlers of `handlers.py`.
"""

from concurrent.futures import ThreadPoolExecutor

from aj_sdk import Queue
from aj_sdk.blocking import Client

PATIENCE_S = 60


def main() -> None:
    """Produce."""
    # A program that stays opens one client per process, after a fork, with client.open(); all its threads may use it.
    with Client.connect() as client:
        client.admin.create_queue(Queue("EMAIL", max_run_time=60, max_tries=20, max_concurrent=50))

        task = client.enqueue("email:new", {"to": "a@example.net"}, queue="EMAIL")
        print(f"result: {client.result(task.id, timeout=PATIENCE_S)}")

        def send(number: int) -> str:
            stored = client.enqueue("email:new", {"to": f"user{number}@example.net"}, queue="EMAIL")
            sent: dict[str, str] = client.result(stored.id, timeout=PATIENCE_S)
            return sent["sent"]

        with ThreadPoolExecutor(4) as threads:
            print(*threads.map(send, range(1, 5)), sep="\n")


if __name__ == "__main__":
    main()
