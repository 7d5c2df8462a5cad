"""Runs the conformance runner on each responder and writes what came of it: `python docs/matrix.py [LANGUAGE ...]`.

The page keeps what the last runs gave; `tests/interop/test_conformance.py` compares it with its own runs. Without names
all responders are run. Each is built first, so its toolchain must be there.
"""
# ruff: noqa: INP001 - a script, not a package

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["COMMANDS", "KNOWN_FAILING", "PAGE", "columns", "conformance", "page"]

_ROOT: Final = Path(__file__).parents[1]
PAGE: Final = _ROOT / "docs" / "matrix.md"
KNOWN_FAILING: Final = {name: _ROOT / "interop" / name / "known-failing.txt" for name in ("python", "shell")}
COMMANDS: Final = {
    **{name: (str(_ROOT / "interop" / name / "run"),) for name in ("go", "node", "rust", "java")},
    "python": (sys.executable, str(_ROOT / "interop" / "python" / "everything.py")),
    **{name: (str(_ROOT / "interop" / name / "run"),) for name in ("shell", "perl")},
}
"""Responder -> what starts it; those with a `build` beside it are built first."""

_MARKS: Final = {"passed": "yes", "failed": "no"}
_UNKNOWN: Final = "not tried"
_HEAD: Final = """# What the responders pass

What `aj-bridge conformance` says of the responders of [interop](../interop/README.md), one case a line; what a case is,
and how to try a responder of yours: [Conformance](conformance.md). `make matrix` runs all of them and writes this page;
the tests run them too, and compare. All that is `must` is passed; the README of a responder says why it leaves out
another.

"""


def conformance(language: str, *, patience: str = "1", cases: Sequence[str] = ()) -> tuple[int, dict[str, Any]]:
    """Run the runner on a responder that is built.

    Args:
        language: a key of `COMMANDS`.
        patience: a factor on all waiting.
        cases: only those of these names.

    Returns:
        Its exit code and what it prints with `--json`.

    Raises:
        ValueError: it printed something else; with what it complained of.
    """
    known = KNOWN_FAILING.get(language)
    done = subprocess.run(  # noqa: S603 - our own
        [
            *(sys.executable, "-m", "aj_bridge", "conformance", "--json", "--patience", patience),
            *("--type", "email:new"),
            *([] if known is None else ["--known-failing", str(known)]),
            *(f"--case={name}" for name in cases),
            *("--", *COMMANDS[language]),
        ],
        capture_output=True,
        text=True,
        timeout=300 * float(patience),
        check=False,
        # `aj-bridge` of this environment, for the responder in a shell.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
    )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ValueError(f"the runner printed no report: {done.stderr}") from None
    return done.returncode, report


def columns(text: str) -> dict[str, dict[str, str]]:
    """Read a page: responder -> case -> outcome, as the runner calls it."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    if not rows:
        return {}
    words = {mark: outcome for outcome, mark in _MARKS.items()}
    names = {row[1].partition("]")[0].lstrip("[") for row in rows[2:]}
    assert len(names) == len(rows) - 2
    return {
        language: {row[1].partition("]")[0].lstrip("["): words[row[number]] for row in rows[2:] if row[number] in words}
        for number, language in enumerate(rows[0][2:], 2)
    }


def page(cases: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """Write a page.

    Args:
        cases: as `aj-bridge conformance --list --json` prints them.
        outcomes: responder -> case -> outcome.
    """
    names = list(COMMANDS)
    lines = [f"| level | case | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
    for case in cases:
        marks = [_MARKS.get(outcomes.get(name, {}).get(case["name"], ""), _UNKNOWN) for name in names]
        link = str(case["link"]).removeprefix("docs/")
        lines.append(f"| {case['level']} | [{case['name']}]({link}) | {' | '.join(marks)} |")
    return _HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Run what is named, and write the page."""
    parser = argparse.ArgumentParser(description="Run the conformance runner on the responders and write the page.")
    parser.add_argument("--patience", default="1", help="a factor on all waiting, for slow machines")
    parser.add_argument("--case", action="append", default=[], metavar="GLOB", help="only cases of this name")
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help=f"of {', '.join(COMMANDS)}; all by default")
    options = parser.parse_args()
    strange = set(options.languages) - set(COMMANDS)
    if strange:
        parser.error(f"no responder is written in {', '.join(sorted(strange))}")
    outcomes = columns(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    for language in options.languages or COMMANDS:
        build = _ROOT / "interop" / language / "build"
        if build.exists():
            subprocess.run([build], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
        code, report = conformance(language, patience=options.patience, cases=options.case)
        cases = report["cases"]
        told = {case["name"]: case["outcome"] for case in cases}
        outcomes[language] = outcomes.get(language, {}) | told if options.case else told
        failed = [case["name"] for case in cases if case["outcome"] != "passed"]
        sys.stdout.write(f"{language}: {len(cases) - len(failed)} of {len(cases)}, not {failed}, exit code {code}\n")
    listed = subprocess.run(
        (sys.executable, "-m", "aj_bridge", "conformance", "--list", "--json"), check=True, capture_output=True
    )
    PAGE.write_text(page(json.loads(listed.stdout), outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
