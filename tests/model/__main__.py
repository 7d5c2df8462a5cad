"""`python -m tests.model`: look at every state of small worlds, with the bridge's own code making the decisions."""

import argparse
import contextlib
import sys

from tests.model.changes import CHANGES
from tests.model.configs import CONFIGS
from tests.model.explore import explore


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.model",
        description=__doc__,
        epilog="examples: python -m tests.model -c pair -c crash   |   python -m tests.model --change 'no rule 0'",
    )
    parser.add_argument("-c", "--config", action="append", choices=list(CONFIGS), help="only this one; may be repeated")
    parser.add_argument("--deep", action="store_true", help="also those that take minutes")
    parser.add_argument("--change", choices=list(CHANGES), help="change a rule; the shortest way to what breaks")
    given = parser.parse_args()
    wanted = {
        name: CONFIGS[name] for name in given.config or CONFIGS if given.config or given.deep or not CONFIGS[name].deep
    }
    change = CHANGES[given.change] if given.change else None
    if change is not None:
        wanted = {f"{given.change}: {change.about}": change.config}
    wrong = 0
    with contextlib.nullcontext() if change is None else change.plant():
        for name, config in wanted.items():
            report = explore(config, first=change is not None)
            print(f"{name}: {config.about}")
            print(
                f"    {report.states} states, {report.steps} steps, depth {report.depth}, {report.seconds:.1f} s",
                flush=True,
            )
            for text, way in report.broken.items():
                wrong += 1
                print(f"    BROKEN {text}")
                for number, line in enumerate(way, 1):
                    print(f"        {number:2d} {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
