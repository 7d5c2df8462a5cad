"""What the end of a command means."""

import pytest

from aj_bridge.core.exits import reply_of_exit
from aj_sdk.wire.call import Completed, Failed, Reply, Terminated


@pytest.mark.parametrize(
    ("code", "complaint", "reply"),
    [
        (0, "a warning", Completed(b"out")),
        (75, "busy, come back", Failed("busy, come back")),
        (75, "", Failed("exit code 75")),
        (78, "no such user", Terminated("no such user")),
        (78, "", Terminated("exit code 78")),
        (1, "", Failed("exit code 1")),
        (3, "disk full", Failed("exit code 3: disk full")),
        (-9, "", Failed("ended by SIGKILL")),
        (-11, "oops", Failed("ended by SIGSEGV: oops")),
        (-63, "", Failed("ended by signal 63")),
    ],
)
def test_the_exit_code_is_the_verdict(code: int, complaint: str, reply: Reply) -> None:
    assert reply_of_exit(code, b"out", complaint) == reply


def test_a_long_complaint_is_cut() -> None:
    reply = reply_of_exit(1, b"", "x" * 100_000)
    assert isinstance(reply, Failed)
    assert len(reply.error) == 8192
