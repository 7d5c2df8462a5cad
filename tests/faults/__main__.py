"""`python -m tests.faults`: run rows of the fault list, print the table, keep the recordings of what went wrong."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tests.faults.planted import BUGS
from tests.faults.rows import LEFT_OUT, ROWS, Row
from tests.faults.runner import Outcome, as_json, run

_EXAMPLES: Final = """\
examples:
  python -m tests.faults --list
  python -m tests.faults --row freeze-bridge --seed 1-20
  python -m tests.faults --seed 7 --tasks 50 --json
  python -m tests.faults --planted
  python -m tests.faults.checker FOLDER        judge kept recordings again
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What all runs of a row came to."""

    row: str
    runs: int
    tasks: int
    faults: int
    violations: int
    broken: int
    recovery_s: float | None
    seconds: float


def main() -> int:
    given = _arguments()
    if given.list:
        _list()
        return 0
    if given.planted:
        return _planted(given)
    rows = _rows(given.row)
    folder = given.keep or Path(tempfile.mkdtemp(prefix="aj-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    broken: list[tuple[str, str]] = []
    to = Console(stderr=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # either way nothing is left running
    stopped = False
    try:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=to
        ) as bars:
            runs = bars.add_task("runs", total=len(rows) * len(given.seed))
            ended = bars.add_task("tasks", total=given.tasks)
            for row in rows:
                for seed in given.seed:
                    bars.update(runs, description=f"{row.name} {seed}")
                    bars.update(ended, completed=0)
                    place = folder / f"{row.name}-{seed}"
                    shutil.rmtree(place, ignore_errors=True)

                    def tell(done: int, total: int) -> None:
                        bars.update(ended, completed=done, total=total)

                    try:
                        outcome = asyncio.run(
                            run(
                                row.name,
                                seed,
                                given.tasks,
                                place,
                                seconds=given.seconds,
                                slack=given.slack,
                                progress=tell,
                            )
                        )
                    except (Exception, pytest.fail.Exception) as err:  # noqa: BLE001 - the other runs go on
                        broken.append((row.name, f"{row.name} {seed} could not be run: {err}; see {place}"))
                        bars.console.print(f"[red]{broken[-1][1]}", markup=True, highlight=False)
                    else:
                        outcomes.append(outcome)
                        if outcome.violations:
                            bars.console.print(f"{row.name} {seed}: see {place}", highlight=False)
                            bars.console.print("\n".join(outcome.stories), markup=False, highlight=False)
                        else:
                            shutil.rmtree(place)
                    bars.advance(runs)
    except KeyboardInterrupt:
        stopped = True
        to.print("stopped; what follows is of the runs that had ended")
    lines = [_line(row.name, outcomes, broken) for row in rows]
    if given.json:
        print(
            json.dumps({"rows": [vars(line) for line in lines], "runs": [as_json(each) for each in outcomes]}, indent=2)
        )
    else:
        _print(lines)
    wrong = bool(broken) or any(each.violations for each in outcomes)
    if wrong:
        to.print(f"the recordings of what went wrong are in {folder}", highlight=False)
    elif given.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 130 if stopped else 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Run tasks while processes are killed, frozen and cut off, and judge what was recorded.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--row", action="append", default=[], metavar="NAME", help="a row (all); may be repeated")
    parser.add_argument("--seed", type=_seeds, default=range(1, 4), metavar="N[-M]", help="a seed, or a range (1-3)")
    parser.add_argument("--tasks", type=_positive, default=200, metavar="N", help="tasks of each run (200)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="over how many seconds they are enqueued (the row's)"
    )
    parser.add_argument(
        "--slack",
        type=float,
        default=float(os.environ.get("AJ_TEST_TIMEOUT_FACTOR", "1")),
        metavar="F",
        help="how much slower than promised this machine may be (AJ_TEST_TIMEOUT_FACTOR, 1)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where recordings of failures go (a temporary folder)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--planted", action="store_true", help="plant each of the bugs that must be caught, and tell what caught it"
    )
    parser.add_argument("--list", action="store_true", help="list the rows, and what is left out and why")
    return parser.parse_args()


def _planted(given: argparse.Namespace) -> int:
    """Run each planted bug until it is caught, print what caught it, and its first story; 1 when one was not."""
    folder = given.keep or Path(tempfile.mkdtemp(prefix="aj-faults-"))
    print("| planted bug | row | caught by | after runs | for example |")
    print("| --- | --- | --- | --- | --- |")
    missed, stories = 0, []
    for name, bug in BUGS.items():
        caught: set[str] = set()
        example, runs = "", 0
        for seed in given.seed:
            runs += 1
            place = folder / f"planted-{name}-{seed}"
            shutil.rmtree(place, ignore_errors=True)
            outcome = asyncio.run(
                run(bug.row, seed, bug.tasks, place, slack=given.slack, bug=name, settle_s=bug.settle_s)
            )
            caught = {violation.split()[0] for violation in outcome.violations}
            if caught & bug.caught_by:
                example = next(each for each in outcome.violations if each.split()[0] in bug.caught_by)
                stories.append(next(story for story in (*outcome.stories, example) if story.startswith(example)))
                break
        else:
            missed += 1
        print(
            f"| {bug.what} | {bug.row} | {', '.join(sorted(caught)) or 'NOTHING'} | {runs} | {example[:160]} |",
            flush=True,
        )
    print()
    print("\n\n".join(stories))
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if missed else 0


def _seeds(text: str) -> Sequence[int]:
    first, _, last = text.partition("-")
    try:
        seeds = range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range such as 1-20")
    return seeds


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _rows(names: Iterable[str]) -> list[Row]:
    for name in names:
        if name not in ROWS:
            why = LEFT_OUT.get(name)
            sys.exit(f"the row {name} is left out: {why}" if why else f"there is no row {name}; --list shows them")
    return [ROWS[name] for name in names] or list(ROWS.values())


def _list() -> None:
    table = Table("row", "what is done", box=None)
    for row in ROWS.values():
        table.add_row(row.name, row.what)
    for name, why in LEFT_OUT.items():
        table.add_row(name, f"left out: {why}")
    Console().print(table)


def _line(name: str, outcomes: Iterable[Outcome], broken: Iterable[tuple[str, str]]) -> Line:
    of = [each for each in outcomes if each.row == name]
    recoveries = [each.recovery_s for each in of if each.recovery_s is not None]
    return Line(
        row=name,
        runs=len(of),
        tasks=sum(each.tasks for each in of),
        faults=sum(each.faults for each in of),
        violations=sum(len(each.violations) for each in of),
        broken=sum(row == name for row, _ in broken),
        recovery_s=max(recoveries, default=None),
        seconds=sum(each.seconds for each in of),
    )


def _print(lines: Iterable[Line]) -> None:
    print("| row | runs | tasks | faults | violations | worst recovery |")
    print("| --- | --- | --- | --- | --- | --- |")
    for line in lines:
        recovery = "" if line.recovery_s is None else f"{line.recovery_s:.1f} s"
        broken = f", {line.broken} could not be run" if line.broken else ""
        print(f"| {line.row} | {line.runs} | {line.tasks} | {line.faults} | {line.violations}{broken} | {recovery} |")


if __name__ == "__main__":
    sys.exit(main())
