"""The README can be followed line by line: its blocks are run here, in their order, against a server of their own.

Each code block follows a comment that says what becomes of it; the comment does not show on the page.

`<!-- make -->`             each line is a target of the Makefile
`<!-- save: FILE -->`       the text of a file, beside which later blocks run
`<!-- run -->`              run by bash; must succeed and complain of nothing
`<!-- prints -->`           what the block before printed
`<!-- start -->`            a program that runs on; it must say that it is ready
`<!-- start, then stop -->` the same, and SIGTERM must end it with exit code 0
`<!-- lines of: PATH -->`   taken from a file of the checkout, in its order; `...` stands for what is left out
`<!-- drawing -->`          for eyes only
`<!-- not run: WHY -->`
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.acceptance.processes import Crew, Process

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
MARKS = ("make", "save", "run", "prints", "start", "start, then stop", "lines of", "drawing", "not run")


@dataclass(frozen=True)
class Block:
    """A code block: what becomes of it, and its text."""

    line: int
    mark: str
    argument: str
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        mark, _, argument = (found["mark"] or "").partition(": ")
        line = text.count("\n", 0, found.start("text"))
        yield Block(line, mark, argument, found["language"], found["text"])


README = list(blocks("README.md"))
every_make_block = pytest.mark.parametrize(
    "block",
    [block for page in ("README.md", "CONTRIBUTING.md") for block in blocks(page) if block.mark == "make"],
    ids=lambda block: block.text.split("\n")[0],
)


def test_every_block_says_what_becomes_of_it() -> None:
    for block in (*README, *blocks("CONTRIBUTING.md")):
        assert block.mark in MARKS, f"line {block.line}: {block.mark!r}"
        assert bool(block.argument) == (block.mark in ("save", "lines of", "not run")), f"line {block.line}"


@every_make_block
def test_make_has_the_targets(block: Block) -> None:
    for line in block.text.splitlines():
        command, *targets = line.partition(" #")[0].split()
        assert command == "make"
        subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("block", [block for block in README if block.mark == "lines of"], ids=lambda b: b.argument)
def test_lines_of_other_languages_are_those_of_the_tested_program(block: Block) -> None:
    source = iter((ROOT / block.argument).read_text(encoding="utf-8").splitlines())
    for line in block.text.splitlines():
        if line.strip().strip("/# ") != "...":
            assert line in source, f"{line!r} is not in {block.argument}, or not in this order"


@pytest.fixture
async def crew(tmp_path: Path, free_port: int, patience: Callable[[float], float]) -> AsyncIterator[Crew]:
    """Give an empty folder with the examples in it, and processes that know the port of the README's server."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    contexts = tmp_path / "config" / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "PROD.json").write_text(f'{{"url": "nats://127.0.0.1:{free_port}"}}')
    crew = Crew(f"nats://127.0.0.1:{free_port}", tmp_path, patience)
    try:
        yield crew
    finally:
        crew.close()


def settings(crew: Crew) -> dict[str, str]:
    """The environment in which a reader's commands find ours, and the server, whose usual port may be taken here."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "AJ_SERVER": crew.url, "XDG_CONFIG_HOME": str(crew.journal.parent / "config")}


def elsewhere(command: str, crew: Crew) -> str:
    """Put ports that may be taken here in place of those of the README."""
    port = crew.url.rpartition(":")[2]
    command = re.sub(r"^nats-server ", f"nats-server --addr 127.0.0.1 --port {port} ", command)
    return command.replace("127.0.0.1:4222", f"127.0.0.1:{port}").replace("127.0.0.1:9100", "127.0.0.1:0")


async def started(block: Block, crew: Crew) -> Process:
    (command,) = block.text.splitlines()
    script = f"cd '{crew.journal.parent}' && exec {elsewhere(command, crew)} 2>&1"
    process = crew.start(f"line {block.line}", "bash", "-c", script, **settings(crew))
    await process.says("ready")
    return process


def run(block: Block, crew: Crew) -> str:
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", elsewhere(block.text, crew)],
        cwd=crew.journal.parent,
        env={**os.environ, **settings(crew)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=crew.patience(60),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"line {block.line}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.acceptance
@pytest.mark.timeout(300)
async def test_the_blocks_do_what_the_page_says(crew: Crew) -> None:
    printed = ""
    for block in README:
        where = f"line {block.line}"
        if block.mark == "save":
            compile(block.text, block.argument, "exec")
            (crew.journal.parent / block.argument).write_text(block.text)
        elif block.mark == "run":
            printed = run(block, crew)
        elif block.mark == "prints":
            assert printed == block.text, where
        elif block.mark == "start":
            await started(block, crew)
        elif block.mark == "start, then stop":
            process = await started(block, crew)
            process.terminate()
            assert await process.ended() == 0, where
