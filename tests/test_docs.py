"""The documentation's generated parts are what the code says, and its links lead somewhere."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from aj_bridge.faces.config import load_config
from aj_bridge.faces.conformance.suite import CASES

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("interop/*/README.md"))
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`]*`", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Names that a page's headings have in links."""
    text = CODE.sub(
        lambda match: match[0] if match[0].startswith("`") and "\n" not in match[0] else "", page.read_text()
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def test_the_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_matrix_has_all_cases_of_the_runner_and_nobody_fails_a_must() -> None:
    matrix = runpy.run_path(str(ROOT / "docs" / "matrix.py"))
    text = matrix["PAGE"].read_text(encoding="utf-8")
    cases = [{"name": case.name, "level": case.level, "link": case.link} for case in CASES]
    assert matrix["page"](cases, matrix["columns"](text)) == text
    assert not [line for line in text.splitlines() if line.startswith("| must") and line.count(" yes ") != 7]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    text = CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        found = (ROOT / page).parent / target if target else ROOT / page
        assert found.exists(), link
        if anchor:
            assert anchor in anchors(found), link


def test_the_configuration_files_on_the_page_are_some(tmp_path: Path) -> None:
    shown, routes = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE | re.DOTALL
    )
    file = tmp_path / "bridge.toml"
    file.write_text(shown)
    config = load_config({"config": str(file)}, {})
    assert (config.queue, config.concurrency, config.log_format) == ((("EMAIL", None),), 200, "json")
    file.write_text(routes)
    assert [route.type for route in load_config({"config": str(file)}, {}).route] == [
        "email:",
        "image:thumbnail",
        "sms:new",
    ]
