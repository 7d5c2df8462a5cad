"""The code on the pages of the languages, cut out of the files that the tests build and run."""
# ruff: noqa: INP001 - a script's module, not a package

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LANGUAGES", "sections"]

_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Language:
    """Where a language's code stands.

    Attributes:
        fence: its name behind the three backticks.
        minimal: the file with the least that a handler needs.
        work: the file with a job that does more; empty where the page shows none.
        first: how the first line of the part of it that is shown begins.
        end: how the line after that part begins.
        tests: the file with an application's tests; empty where the page shows none.
    """

    fence: str
    minimal: str
    work: str = ""
    first: str = ""
    end: str = ""
    tests: str = ""


_JAVA: Final = "interop/java/src/main/java"

LANGUAGES: Final = {
    "go": Language(
        "go", "interop/go/minimal/main.go", "interop/go/work.go", 'case do == "progress"', 'case do == "headers"'
    ),
    "java": Language("java", f"{_JAVA}/Minimal.java", f"{_JAVA}/Work.java", 'case "progress":', 'case "headers":'),
    "node": Language("js", "interop/node/minimal.js", "interop/node/work.js", 'case "progress":', 'case "headers":'),
    "python": Language(
        "python",
        "examples/minimal.py",
        "examples/around.py",
        "@services.lifespan",
        "if __name__",
        "examples/testing/test_emails.py",
    ),
    "rust": Language(
        "rust", "interop/rust/src/minimal.rs", "interop/rust/src/work.rs", '"progress" =>', '"headers" =>'
    ),
    "shell": Language("sh", "examples/shell/send-email"),
}


def sections(name: str) -> dict[str, str]:
    """Return the generated sections of a language's page."""
    language = LANGUAGES[name]
    made = {"minimal": _fenced(language.fence, (_ROOT / language.minimal).read_text(encoding="utf-8"))}
    if language.work:
        made["progress"] = _fenced(language.fence, _part(language))
    if language.tests:
        made["tests"] = _fenced(language.fence, (_ROOT / language.tests).read_text(encoding="utf-8"))
    return made


def _part(language: Language) -> str:
    lines = (_ROOT / language.work).read_text(encoding="utf-8").splitlines()
    begins = [number for number, line in enumerate(lines) if line.lstrip().startswith(language.first)]
    ends = [number for number, line in enumerate(lines) if line.lstrip().startswith(language.end)]
    if len(begins) != 1 or len(ends) != 1:
        raise LookupError(f"{language.work}: {language.first!r} or {language.end!r} does not begin one line")
    return textwrap.dedent("\n".join(lines[begins[0] : ends[0]]))


def _fenced(fence: str, text: str) -> str:
    return f"```{fence}\n{text.rstrip()}\n```"
