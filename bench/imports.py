"""What importing the SDK costs, beside `import nats`, which is a part of it.

Each import happens in a process of its own, in turn, which tells how long it took; medians count. The files are in the
system's cache and compiled: the first round warms up and is not counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Final

_IMPORTS: Final = (
    "import nats",
    "import aj_sdk",
    "from aj_sdk import run, service",
    "from aj_sdk import Client",
    "import aj_sdk.blocking",
)
_CODE: Final = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="processes for each import (21)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    medians = _measure(options.rounds)
    ratios = {name: median / medians[_IMPORTS[0]] for name, median in medians.items()}
    if options.json:
        figures = {name: {"ms": round(medians[name] * 1e3, 1), "ratio": round(ratios[name], 3)} for name in _IMPORTS}
        print(json.dumps({"rounds": options.rounds, "imports": figures}))
        return
    for name in _IMPORTS:
        print(f"{name:<32} {medians[name] * 1e3:7.1f} ms   {ratios[name]:.2f} x import nats")


def _measure(rounds: int) -> dict[str, float]:
    """Return the median seconds of each import."""
    seconds: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for number in range(rounds + 1):
        for name in _IMPORTS:
            took = _import(name)
            if number:
                seconds[name].append(took)
        if sys.stderr.isatty():
            print(f"\rround {number} of {rounds}", end="" if number < rounds else "\n", file=sys.stderr, flush=True)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _import(statement: str) -> float:
    command = [sys.executable, "-c", _CODE.format(statement)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout)


if __name__ == "__main__":
    main()
