"""The least that a handler needs: python examples/minimal.py, with a NATS server and a bridge beside it."""

from aj_sdk import Terminate, run, service


@service("email:new")
async def send(email: dict[str, str]) -> dict[str, str]:
    """Send an e-mail; the payload is JSON, and so is the result."""
    if not email.get("to"):
        raise Terminate("no address")  # no further try can mend it
    if email["to"] == "nobody@example.net":
        raise OSError("no such mailbox")  # any other exception: to be tried again
    return {"sent": email["to"]}


if __name__ == "__main__":
    run(on_ready=lambda: print("ready"))
