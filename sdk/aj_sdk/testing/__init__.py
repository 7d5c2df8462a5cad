"""Trying handlers: without a server by `call`, on a real one by the pytest fixtures of `aj_sdk.testing.fixtures`.

from aj_sdk import testing

async def test_it_sends() -> None:
    outcome = await testing.call("email:new", {"to": "a@example.net"}, services=services)
    assert outcome.result == {"sent": "a@example.net"}
"""

from aj_sdk.testing.calls import Outcome, call, call_blocking

__all__ = ["Outcome", "call", "call_blocking"]
