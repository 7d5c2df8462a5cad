"""`python -m tests.faults.checker FOLDER...`: judge recordings again; exit code 1 when something is wrong."""

import argparse
import sys
from pathlib import Path

from tests.faults.checker.history import read
from tests.faults.checker.verdict import explain, judge


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge the recordings of runs with faults.")
    parser.add_argument(
        "folder", nargs="+", type=Path, help="with the recordings of one run: run.json, saves.jsonl, ..."
    )
    parser.add_argument("--task", help="tell what happened to this task, whether or not anything is wrong")
    parser.add_argument("--stories", type=int, default=3, help="violations to tell the whole story of (3)")
    given = parser.parse_args()
    wrong = 0
    for folder in given.folder:
        try:
            history = read(folder)
        except (OSError, ValueError, KeyError, TypeError) as err:
            parser.error(f"{folder} can't be read as the recordings of a run: {err!r}")
        violations = judge(history)
        wrong += len(violations)
        print(f"{folder}: {len(history.tasks)} tasks, {len(history.saves)} saves, {len(violations)} violations")
        for at, violation in enumerate(violations):
            print(f"  {violation}")
            if at < given.stories and violation.task:
                print("\n".join(f"    {line}" for line in explain(history, violation.task)))
        if given.task:
            print("\n".join(f"    {line}" for line in explain(history, given.task)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
