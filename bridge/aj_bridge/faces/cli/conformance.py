"""`aj-bridge conformance`: tries a responder in any language against the protocol."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import click
from rich.console import Console

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.bulk import progress_bar
from aj_bridge.faces.cli.frame import leaf
from aj_bridge.faces.conformance.cases import Case, Level, chosen
from aj_bridge.faces.conformance.frames import Frame
from aj_bridge.faces.conformance.runner import Outcome, Report, Verdict, run_cases
from aj_bridge.faces.conformance.suite import CASES, PRODUCER_CASES
from aj_sdk.program import loop_factory
from aj_sdk.wire.names import check_name

__all__ = ["command"]

_FRAMES_SHOWN = 6
_LINES_SHOWN = 5
_MARKS = {Outcome.PASSED: "[green]ok  [/green]", Outcome.FAILED: "[red]FAIL[/red]"}


@leaf(
    "conformance",
    "aj-bridge conformance -- ./my-responder",
    "aj-bridge conformance --type email:new --case 'deadline-*' --trace -- node responder.js",
    "aj-bridge conformance --known-failing known.txt --junit report.xml -- ./run",
    "aj-bridge conformance --producer -- python my_producer.py",
    "aj-bridge conformance --list",
)
@click.option("--type", "task_type", default="conformance:task", show_default=True, help="Task type of most cases.")
@click.option(
    "--known-failing",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the names of cases that are known to fail, one a line, # for comments. They are run all the "
    "same and do not count; one that passes fails the run, until it is taken off the list.",
)
@click.option("--case", "patterns", multiple=True, metavar="GLOB", help="Only cases of this name; may be repeated.")
@click.option("--producer", is_flag=True, help="Try a program that enqueues what standard input says.")
@click.option("--list", "only_list", is_flag=True, help="List the cases and start nothing.")
@click.option("--json", "-j", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write a JUnit report to this file.")
@click.option("--trace", is_flag=True, help="Print every request and reply.")
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 100),
    default=1.0,
    show_default=True,
    help="Factor on all that the runner waits for, for slow machines.",
)
@click.argument("responder", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    task_type: str,
    known_failing: Path | None,
    patterns: tuple[str, ...],
    producer: bool,
    only_list: bool,
    as_json: bool,
    junit: Path | None,
    trace: bool,
    patience: float,
    responder: tuple[str, ...],
) -> None:
    """Try the responder that a command starts, on a NATS server of its own.

    The command comes after `--`. It finds NATS_URL, AJ_TYPE, AJ_SUBJECT and AJ_QUEUE_GROUP in its environment; what the
    responder has to do in a case stands in the payload, see docs/conformance.md.

    With --producer the command is started once a task; see the same page.

    A failing case says what it asks for and where the protocol says so, what was expected, what came, and what crossed
    the wire. Exit code 1 when a case of level must fails, 0 when none does, 2 for a wrong command line.
    """
    check_name(task_type, "task type")
    cases = chosen(PRODUCER_CASES if producer else CASES, patterns)
    if not cases:
        raise click.UsageError(f"no case is named {' or '.join(patterns)}; --list shows them")
    if only_list:
        _list(cases, as_json=as_json)
        return
    if not responder:
        raise click.UsageError("no command: give what starts your responder after --")
    known = set() if known_failing is None else _known(known_failing)
    console = Console(stderr=True, quiet=as_json, highlight=False)
    progress = progress_bar(console)
    with progress, asyncio.Runner(loop_factory=loop_factory()) as loop:
        bar = progress.add_task("starting", total=len(cases))

        def show(verdict: Verdict) -> None:
            progress.advance(bar)
            _print(console, verdict, trace=trace)

        report = loop.run(
            run_cases(
                responder,
                cases,
                task_type=task_type,
                known_failing=known,
                patience=patience,
                show=show,
                begins=lambda case: progress.update(bar, description=case.name),
            )
        )
    if junit is not None:
        _write_junit(junit, report)
    if as_json:
        output.print_json(_as_json(report, trace=trace))
    else:
        _summary(report)
    ctx.exit(0 if report.passed else 1)


def _known(file: Path) -> set[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    found = {line.partition("#")[0].strip() for line in lines} - {""}
    strange = sorted(found - {case.name for case in (*CASES, *PRODUCER_CASES)})
    if strange:
        raise click.UsageError(f"{file} names cases that there are not: {', '.join(strange)}; --list shows them")
    return found


def _list(cases: Sequence[Case], *, as_json: bool) -> None:
    if as_json:
        output.print_json(
            [{"name": case.name, "level": case.level, "says": case.says, "link": case.link} for case in cases]
        )
        return
    width = max(len(case.name) for case in cases)
    for case in cases:
        click.echo(f"{case.level:<6}  {case.name:<{width}}  {case.says}  ({case.link})")


def _print(console: Console, verdict: Verdict, *, trace: bool) -> None:
    case = verdict.case
    known = ", known to fail" if verdict.known else ""
    console.print(f"{_MARKS[verdict.outcome]} {case.level:<6} {case.name}{known}  {verdict.seconds:.1f} s")
    lines = []
    if verdict.outcome is Outcome.FAILED:
        lines = [f"it {case.says}: {case.link}", f"expected: {verdict.expected}", f"came:     {verdict.came}"]
    elif verdict.known:
        lines = ["it passes now: take it off the list"]
    if verdict.outcome is Outcome.FAILED or trace:
        lines += _frames(verdict.frames, None if trace else _FRAMES_SHOWN)
    lines += [f"responder: {line}" for line in verdict.said[-_LINES_SHOWN:]]
    for line in lines:
        console.print(f"       {output.clean(line)}", markup=False, soft_wrap=True)


def _frames(frames: Sequence[Frame], at_most: int | None) -> list[str]:
    shown = [frame.text for frame in frames[:at_most]]
    left = len(frames) - len(shown)
    return [*shown, f"and {left} more; --trace shows all"] if left else shown


def _counts(report: Report) -> dict[str, dict[str, int]]:
    return {level: {outcome: report.number(outcome, level) for outcome in Outcome} for level in Level}


def _as_json(report: Report, *, trace: bool) -> dict[str, object]:
    return {
        "passed": report.passed,
        "seconds": round(report.seconds, 3),
        "levels": _counts(report),
        "cases": [
            {
                "name": verdict.case.name,
                "level": verdict.case.level,
                "link": verdict.case.link,
                "outcome": verdict.outcome,
                "known_failing": verdict.known,
                "seconds": round(verdict.seconds, 3),
                "expected": verdict.expected,
                "came": verdict.came,
                "frames": _frames(verdict.frames, None) if trace or verdict.outcome is Outcome.FAILED else [],
            }
            for verdict in report.verdicts
        ],
    }


def _summary(report: Report) -> None:
    for level in Level:
        counts = _counts(report)[level]
        failed = [v.case.name for v in report.verdicts if v.case.level is level and v.outcome is Outcome.FAILED]
        names = f": {', '.join(failed)}" if failed else ""
        click.echo(f"{level:<6}  {counts[Outcome.PASSED]} passed, {len(failed)} failed{names}")
    click.echo(f"{'passed' if report.passed else 'FAILED'} in {report.seconds:.0f} s")


def _write_junit(file: Path, report: Report) -> None:
    suite = ET.Element(
        "testsuite",
        name="aj-bridge conformance",
        tests=str(len(report.verdicts)),
        failures=str(sum(verdict.counts for verdict in report.verdicts)),
        skipped=str(sum(v.outcome is Outcome.FAILED and not v.counts for v in report.verdicts)),
        time=f"{report.seconds:.3f}",
    )
    for verdict in report.verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"conformance.{verdict.case.level}",
            name=verdict.case.name,
            time=f"{verdict.seconds:.3f}",
        )
        text = f"expected {verdict.expected}, came {verdict.came} ({verdict.case.link})"
        if verdict.counts and verdict.known:
            ET.SubElement(case, "failure", message="passes, but is listed as failing")
        elif verdict.counts:
            ET.SubElement(case, "failure", message=output.clean(text))
        elif verdict.outcome is Outcome.FAILED:
            ET.SubElement(case, "skipped", message=output.clean(text))
    file.write_bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True) + os.linesep.encode())
