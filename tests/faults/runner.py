"""One run of a row: the stand, the producer, the faults, the end, the verdict."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.checker.history import read
from tests.faults.checker.liveness import recoveries
from tests.faults.checker.verdict import explain, judge
from tests.faults.rows import ROWS
from tests.faults.stand import open_stand

__all__ = ["Outcome", "run"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to; `recovery_s` is the worst one after a kill, None where none was held by who was killed."""

    row: str
    seed: int
    tasks: int
    calls: int
    faults: int
    seconds: float
    violations: tuple[str, ...]
    stories: tuple[str, ...]
    recovery_s: float | None
    folder: Path


async def run(
    row_name: str,
    seed: int,
    tasks: int,
    folder: Path,
    *,
    seconds: float | None = None,
    slack: float = 1.0,
    bug: str = "",
    settle_s: float | None = None,
    progress: Callable[[int, int], None] = lambda _ended, _total: None,
) -> Outcome:
    """Run a row once, and judge what was recorded.

    Args:
        row_name: one of `ROWS`.
        seed: of all that is left to chance here; what the machine does is not.
        tasks: how many tasks.
        folder: for the recordings; must not be there.
        seconds: over how long tasks are enqueued; None for what the row says.
        slack: how much slower than promised this machine may be.
        bug: one of `planted.BUGS`, for the bridges.
        settle_s: how long to wait for the end; None for what the row says.
        progress: told now and then how many of the tasks have ended.
    """
    row, began = ROWS[row_name], time.monotonic()
    setting, chance = row.setting, random.Random(f"{row_name} {seed}")
    specs = row.orders(chance, f"{row_name}-{seed}", tasks)
    settle = settle_s or setting.settle_s
    async with open_stand(setting, folder, chance, lambda seconds_: seconds_ * slack, bug) as stand:
        offset = time.time_ns() - time.monotonic_ns()
        stand.total = len(specs)
        if not row.gated:
            stand.gate.set()
        telling = asyncio.create_task(_tell(lambda: progress(len(stand.ended), stand.total)))
        probing = asyncio.create_task(stand.probe())
        watching = asyncio.create_task(stand.watch_machine())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(stand.produce(specs, row.seconds if seconds is None else seconds))
                group.create_task(row.inject(stand))
            await stand.restore()
            healed_at = time.time_ns()
            await stand.settled(settle * slack)
        finally:
            telling.cancel()
            probing.cancel()
            watching.cancel()
        ended_at = time.time_ns()
        await stand.end()
        faults = stand.injected
    told = {
        "row": row_name,
        "seed": seed,
        "lease_s": setting.lease_s,
        "max_run_time_s": setting.max_run_time_s,
        "heartbeat_s": setting.lease_s / 3,
        "settle_s": settle,
        "canaries": setting.canaries,
        "skew_s": setting.skew_s,
        "slack": slack,
        "monotonic_offset_ns": offset,
        "healed_at": healed_at,
        "ended_at": ended_at,
    }
    (folder / "run.json").write_text(json.dumps(told))
    history = await asyncio.to_thread(read, folder)
    violations = judge(history)
    stories = [
        "\n".join([str(each), *(f"    {line}" for line in explain(history, each.task))]) for each in violations[:3]
    ]
    return Outcome(
        row=row_name,
        seed=seed,
        tasks=len(stand.tasks),
        calls=len(history.calls),
        faults=faults,
        seconds=time.monotonic() - began,
        violations=tuple(map(str, violations)),
        stories=tuple(stories),
        recovery_s=max((took for _, _, took in recoveries(history) if took is not None), default=None),
        folder=folder,
    )


async def _tell(tell: Callable[[], None]) -> None:
    while True:
        tell()
        await asyncio.sleep(0.2)


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return what `--json` prints of a run."""
    return {**asdict(outcome), "folder": str(outcome.folder)}
