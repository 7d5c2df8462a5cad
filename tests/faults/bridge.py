"""`aj-bridge` as the fault tests start it: the real program, which dies after a step of its own, or has a planted bug.

    AJ_TEST_KILL_AFTER=STEP[:WORD][:N] AJ_TEST_BUG=NAME python -m tests.faults.bridge run ...

It puts something around one named seam before the program begins, so that the program itself needs no switch: dying
hangs on the journal, whose n-th line of a step (with this state, outcome or decision) is the last one; bugs are in
`planted`.
"""

import asyncio
import gc
import json
import os
import signal
from pathlib import Path

from nats.aio.client import Client
from tests.faults.planted import BUGS

from aj_bridge.entry import aj_bridge
from aj_bridge.faces.journal import JournalFile


def die_after(text: str) -> None:
    """Have this process killed when its journal has the n-th line of a step."""
    step, _, rest = text.partition(":")
    word, _, number = rest.rpartition(":")
    left = [int(number or 1)]
    write = JournalFile.write

    def write_and_die(self: JournalFile, line: bytes) -> None:
        write(self, line)
        told = json.loads(line)
        if told["step"] == step and (not word or word in (told.get("state"), told.get("outcome"), told.get("what"))):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    JournalFile.write = write_and_die  # type: ignore[method-assign]


def sample_on_signal(path: str) -> None:
    """Have this process write down, on each SIGUSR1, what it needs and holds."""

    def sample(_number: int, _frame: object) -> None:
        status = Path("/proc/self/status").read_text()
        connections = [each for each in gc.get_objects() if isinstance(each, Client)]
        row = {
            "process": os.getpid(),
            "rss_kib": int(status.partition("VmRSS:")[2].split()[0]),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "tasks": len(asyncio.all_tasks()),
            "subscriptions": sum(len(each._subs) for each in connections),
        }
        with Path(path).open("a") as file:
            file.write(json.dumps(row) + "\n")

    signal.signal(signal.SIGUSR1, sample)


def main() -> None:
    if samples := os.environ.pop("AJ_TEST_SAMPLES", ""):
        sample_on_signal(samples)
    if after := os.environ.pop("AJ_TEST_KILL_AFTER", ""):
        die_after(after)
    if bug := os.environ.pop("AJ_TEST_BUG", ""):
        BUGS[bug].plant()
    aj_bridge()


if __name__ == "__main__":
    main()
