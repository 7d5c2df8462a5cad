"""The conformance runner finds what is wrong with a responder, by the cases that are meant for it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from tests.conftest import TIMEOUT_FACTOR
from tests.test_docs import anchors

from aj_bridge.faces.cli.main import aj_bridge_group
from aj_bridge.faces.conformance.cases import Level, chosen
from aj_bridge.faces.conformance.runner import Outcome, run_cases
from aj_bridge.faces.conformance.suite import CASES, PRODUCER_CASES

ROOT = Path(__file__).parents[4]
WRONG = (sys.executable, str(Path(__file__).with_name("wrong.py")))
MUSTS = {case.name for case in CASES if case.level is Level.MUST}
SLOW = {"bridge-crash", "crash", "drain-in-hand", "drain-leaves", "drain-ends", "prefix", "catch-all"}
"""Cases that start responders of their own: tried only where a defect is meant for them."""

server = pytest.mark.server
long = pytest.mark.timeout(120 * TIMEOUT_FACTOR)

CAUGHT = {
    "none": set(),
    "trims": {"echo"},
    "needs-payload": {"payload-null"},
    "null-for-nothing": {"result-empty"},
    "text-only": {"result-not-utf8"},
    "cuts-results": {"result-700-kb", "bridge-result-900-kb"},
    "known-keys-only": {"unknown-fields"},
    "needs-protocol": {"go-worker", "deadline-past-go", "retry-after-unoffered", "interim-unoffered"},
    "dies-of-garbage": {"goes-on"},
    "error-in-body": {"error", "error-line-breaks", "error-emoji", "still-well"},
    "first-line-only": {"error-line-breaks", "terminate-line-breaks"},
    "ascii-errors": {"error-emoji", "error-unicode", "terminate-emoji"},
    "never-terminates": {"terminate", "terminate-line-breaks", "terminate-emoji", "bridge-terminate"},
    "error-wins": {"terminate-wins"},
    "forgets-tries": {"fail-once", "bridge-redelivery"},
    "always-retry-after": {"retry-after-unoffered"},
    "begins-late": {"deadline-past", "deadline-past-go"},
    "ignores-deadline": {"deadline-honoured"},
    "always-interim": {"interim-unoffered"},
    "answers-twice": {"one-answer", "queue-group"},
    "one-by-one": {"ten-at-once"},
    "no-group": {"queue-group"},
    "once-an-id": {"same-id-again", "bridge-redelivery"},
    "no-prefix": {"prefix"},
    "no-catch-all": {"catch-all"},
    "survives-crash": {"crash", "bridge-crash"},
    "drops-what-is-in-hand": {"drain-in-hand", "drain-leaves"},
    "listens-on": {"drain-leaves"},
}
"""Defect of `wrong.py` -> the cases of level must that it breaks, and no others."""


def test_there_are_at_least_40_cases_each_with_a_name_of_its_own() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.level for case in CASES} == set(Level)


def test_every_case_leads_to_a_heading_of_the_protocol() -> None:
    there = anchors(ROOT / "docs" / "protocol.md")
    assert {case.anchor for case in (*CASES, *PRODUCER_CASES)} <= there


def test_every_case_of_level_must_is_caught_by_a_defect() -> None:
    # These break only together with others, or with what the defects above can't do.
    rest = {"echo-unicode", "payload-empty", "task-seen", "unknown-headers", "optional-fields", "bare-task"}
    rest |= {"deadline-in-time", "bridge-complete", "drain-ends"}
    assert set().union(*CAUGHT.values()) == MUSTS - rest


@server
@long
@pytest.mark.parametrize("defect", CAUGHT)
async def test_a_defect_is_found_by_the_cases_meant_for_it(defect: str) -> None:
    wanted = [case for case in CASES if case.name in MUSTS - SLOW | CAUGHT[defect]]
    # A responder that answers everything twice confuses what looks at one answer; only those that count are asked.
    if defect == "answers-twice":
        wanted = [case for case in wanted if case.name in CAUGHT[defect]]
    report = await run_cases((*WRONG, defect), wanted, task_type="email:new", patience=TIMEOUT_FACTOR)
    broken = {v.case.name: (v.expected, v.came) for v in report.verdicts if v.outcome is Outcome.FAILED}
    assert set(broken) == CAUGHT[defect], broken
    assert report.passed == (not broken)


@server
@long
async def test_what_a_plain_responder_leaves_out_is_found_by_the_cases_that_are_no_must() -> None:
    wanted = [case for case in CASES if case.name not in MUSTS]
    report = await run_cases((*WRONG, "beats-on"), wanted, task_type="email:new", patience=TIMEOUT_FACTOR)
    broken = {verdict.case.name for verdict in report.verdicts if verdict.outcome is Outcome.FAILED}
    assert broken == {
        "cancel",
        "found",
        "headers-seen",
        "heartbeat-automatic",
        "messagepack",
        "outcome-last",  # it does not stop its heartbeats
        "progress",
    }
    assert report.passed


def conformance(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(
        aj_bridge_group(), ["conformance", *arguments], standalone_mode=False, catch_exceptions=True
    )
    code = done.return_value if isinstance(done.return_value, int) else done.exit_code
    return code, done.stdout, f"{done.stderr}{done.exception or ''}"


def test_the_list_shows_level_name_and_paragraph() -> None:
    code, out, _ = conformance("--list", "--case", "deadline-*")
    assert code == 0
    assert len(out.splitlines()) == len(chosen(CASES, ["deadline-*"])) == 6
    assert out.startswith("must    deadline-past ")
    assert "(docs/protocol.md#4-the-deadline)" in out
    assert [case["name"] for case in json.loads(conformance("--list", "--json", "--case", "echo")[1])] == ["echo"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [((), "no command"), (("--case", "nothing", "--", "true"), "no case is named nothing")],
)
def test_wrong_use_is_told(arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in conformance(*arguments)[2]


def test_a_list_of_known_failures_names_cases_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "known.txt"
    file.write_text("echo # it trims\nehco\n")
    assert "ehco" in conformance("--known-failing", str(file), "--", "true")[2]


@server
def test_what_is_known_to_fail_does_not_count_until_it_passes(tmp_path: Path) -> None:
    file, junit = tmp_path / "known.txt", tmp_path / "report.xml"
    file.write_text("# ours\necho\n")
    arguments = ("--known-failing", str(file), "--junit", str(junit), "--json")
    code, out, _ = conformance(*arguments, "--case", "echo*", "--", *WRONG, "trims")
    report = json.loads(out)
    assert (code, report["passed"]) == (0, True)
    assert [(case["name"], case["outcome"]) for case in report["cases"]] == [
        ("echo", "failed"),
        ("echo-unicode", "passed"),
    ]
    assert ET.parse(junit).getroot().attrib["skipped"] == "1"
    code, out, _ = conformance(*arguments, "--case", "echo*", "--", *WRONG, "none")
    assert (code, json.loads(out)["passed"]) == (1, False)
    assert ET.parse(junit).getroot().attrib["failures"] == "1"


@server
def test_a_trace_shows_what_crossed_the_wire_of_a_case_that_passes_too() -> None:
    code, out, err = conformance("--case", "echo", "--trace", "--", *WRONG, "none")
    assert (code, out.splitlines()[0]) == (0, "must    1 passed, 0 failed")
    assert "-> CHORIA_AJ.H.T.conformance:task [AJ-Content-Type" in err
    assert "<- _INBOX." in err


@server
def test_a_failure_tells_what_was_sent_what_came_and_what_was_expected() -> None:
    code, out, err = conformance("--case", "terminate-wins", "--", *WRONG, "error-wins")
    assert code == 1
    assert "FAIL must   terminate-wins" in err
    assert "expected: the header AJ-Terminate" in err
    assert "came:     [AJ-Error: not this one]" in err
    assert "-> CHORIA_AJ.H.T.conformance:task [AJ-Content-Type" in err
    assert "docs/protocol.md#3-the-reply" in err
    assert "must    0 passed, 1 failed: terminate-wins" in out


@server
async def test_of_a_responder_that_never_listens_all_cases_fail_with_the_first_reason() -> None:
    report = await run_cases(("false",), CASES, task_type="email:new")
    assert {verdict.came for verdict in report.verdicts} == {"the responder ended with 1 before it listened"}


@server
def test_a_command_that_ends_or_is_not_there_is_told(patience: Callable[[float], float]) -> None:
    code, _, err = conformance("--case", "echo", "--", "false")
    assert code == 1
    assert "the responder ended with 1 before it listened" in err
    assert "cannot start 'no-such-command'" in conformance("--case", "echo", "--", "no-such-command")[2]


PRODUCER = str(ROOT / "interop" / "python" / "produce.py")
WRONG_PRODUCER = str(Path(__file__).with_name("wrong_producer.py"))


@server
@long
@pytest.mark.parametrize(
    ("command", "caught"),
    [
        ((PRODUCER,), set()),
        ((WRONG_PRODUCER, "none"), set()),
        ((WRONG_PRODUCER, "no-item"), {"producer-item", "producer-twice"}),
        ((WRONG_PRODUCER, "wrong-item"), {"producer-item"}),
        ((WRONG_PRODUCER, "wrong-state"), {"producer-record"}),
        ((WRONG_PRODUCER, "null-as-text"), {"producer-payload-none"}),
        ((WRONG_PRODUCER, "fixed-tries"), {"producer-max-tries"}),
        ((WRONG_PRODUCER, "microseconds"), {"producer-deadline"}),
        ((WRONG_PRODUCER, "never-blocks"), {"producer-dependencies"}),
        ((WRONG_PRODUCER, "says-no"), {case.name for case in PRODUCER_CASES}),
    ],
    ids=lambda value: str(value[-1]).rpartition("/")[2] if isinstance(value, tuple) else "",
)
async def test_a_producer_is_judged_by_what_it_stored(command: tuple[str, ...], caught: set[str]) -> None:
    run = (sys.executable, *command)
    report = await run_cases(run, PRODUCER_CASES, task_type="email:new", patience=TIMEOUT_FACTOR)
    broken = {v.case.name: (v.expected, v.came) for v in report.verdicts if v.outcome is Outcome.FAILED}
    assert set(broken) == caught, broken
