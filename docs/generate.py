"""Writes the generated parts of these pages: `python docs/generate.py`; with `--check` it only says what differs.

A page is a function that returns its whole text. Most pages are written by hand and have sections between the lines
`<!-- generated: NAME -->` and `<!-- end -->`, which `filled` replaces: what stands there comes from the code, so it
can't part from it.
"""
# ruff: noqa: INP001 - scripts, not a package

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent
_SECTION: Final = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def filled(page: str, sections: Mapping[str, str]) -> str:
    """Return a page of this folder with its generated sections made anew.

    Args:
        page: the file's name.
        sections: the text of each section.

    Raises:
        LookupError: the page lacks a section, or has one that nothing makes.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    there = {match[2] for match in _SECTION.finditer(text)}
    if there != set(sections):
        raise LookupError(f"{page}: these sections stand on one side only: {sorted(there ^ set(sections))}")
    return _SECTION.sub(lambda match: f"{match[1]}{sections[match[2]].strip(chr(10))}\n{match[3]}", text)


def _protocol() -> str:
    return filled("protocol.md", importlib.import_module("protocol_examples").sections())


def _operations() -> str:
    return filled("operations.md", importlib.import_module("operations_examples").sections())


def _lifecycle() -> str:
    return filled("lifecycle.md", importlib.import_module("lifecycle_drawing").sections())


def _go_types() -> str:
    return str(importlib.import_module("wire_types").go())


def _typescript_types() -> str:
    return str(importlib.import_module("wire_types").typescript())


def _language(name: str) -> Callable[[], str]:
    return lambda: filled(f"{name}.md", importlib.import_module("languages").sections(name))


def _asyncapi() -> str:
    return str(importlib.import_module("asyncapi").asyncapi())


def _own_vectors() -> Mapping[str, str]:
    vectors: Mapping[str, str] = importlib.import_module("own_vectors").VECTORS
    return vectors


PAGES: Final[dict[str, Callable[[], str]]] = {
    # First, because pages show them.
    **{
        f"../schemas/aj_schemas/vectors/{path}": (lambda text=text: text)  # type: ignore[misc]
        for path, text in _own_vectors().items()
    },
    "lifecycle.md": _lifecycle,
    "operations.md": _operations,
    "protocol.md": _protocol,
    **{f"{name}.md": _language(name) for name in ("go", "java", "node", "python", "rust", "shell")},
    "../schemas/aj_schemas/asyncapi.yaml": _asyncapi,
    "../interop/go/ajtypes/types.go": _go_types,
    "../interop/node/types.d.ts": _typescript_types,
}


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show what differs")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)}; all when none is named")
    options = parser.parse_args()
    differs = False
    for page in options.pages or PAGES:
        if page not in PAGES:
            parser.error(f"no page {page!r} is generated")
        path = DOCS / page
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = PAGES[page]()
        if before == after:
            continue
        differs = True
        if options.check:
            lines = (before.splitlines(keepends=True), after.splitlines(keepends=True))
            sys.stdout.writelines(difflib.unified_diff(*lines, f"docs/{page}", f"docs/{page} (generated)"))
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"wrote docs/{page}\n")
    if options.check and differs:
        sys.stdout.write("the pages are out of date: python docs/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
