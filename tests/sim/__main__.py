"""`python -m tests.sim`: simulate seeds, or replay one and tell what happened."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable

from tests.sim.bugs import BUGS
from tests.sim.judge import judge
from tests.sim.scenario import Plan, simulate


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description=__doc__,
        epilog="examples: python -m tests.sim --seeds 5000   |   python -m tests.sim --seed 42 --trace --task t3",
    )
    parser.add_argument("--seed", type=int, help="one seed; the first of several with --seeds")
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds (default: 1000, or 1 with --seed)")
    parser.add_argument("--calm", action="store_true", help="nothing but crashes: how fast tasks come back")
    parser.add_argument("--bug", choices=list(BUGS), help="plant a bug")
    parser.add_argument("--trace", action="store_true", help="print the whole history, not only that of a failure")
    parser.add_argument("--task", default="", help="only what is about this task")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long")
    given = parser.parse_args()
    bug = BUGS[given.bug] if given.bug else None
    choose = bug.plan if bug is not None else Plan.calm_of if given.calm else Plan.of
    with contextlib.nullcontext() if bug is None else bug.plant():
        return _play(given, choose)


def _play(given: argparse.Namespace, choose: Callable[[int], Plan]) -> int:
    first = given.seed or 0
    number = given.seeds or (1 if given.seed is not None else 1000)
    began, broken, played = time.monotonic(), 0, 0
    for seed in range(first, first + number):
        plan = choose(seed)
        history = simulate(plan)
        wrong = judge(plan, history)
        played += 1
        if given.trace or (wrong and number == 1):
            print("\n".join(history.text(given.task)))
        if wrong:
            broken += 1
            print(f"seed {seed}: " + "; ".join(wrong), flush=True)
        if given.seconds and time.monotonic() - began > given.seconds:
            break
    took = time.monotonic() - began
    print(f"{played} seeds, {broken} broke a promise, {took:.1f} s, {played / took * 60:.0f} seeds a minute")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
