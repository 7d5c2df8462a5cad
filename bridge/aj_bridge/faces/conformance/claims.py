"""What a check may say about an answer; each raises `Broken` with what was expected and what came."""

import json
from typing import Any

from aj_bridge.faces.conformance.cases import Broken
from aj_bridge.faces.conformance.frames import Answer

__all__ = ["failed", "result", "says", "succeeded", "terminated"]


def says(holds: object, expected: str, came: str) -> None:
    """Claim something."""
    if not holds:
        raise Broken(expected, came)


def succeeded(answer: Answer, expected: str = "a success: a reply without AJ-Error and AJ-Terminate") -> bytes:
    """Claim a success, and return the result."""
    says(answer.succeeded, expected, answer.text)
    assert answer.final is not None
    return answer.final.body


def result(answer: Answer) -> dict[str, Any]:
    """Claim a success whose result is a JSON object, and return that."""
    body = succeeded(answer)
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Broken("a result that is a JSON object", answer.text)
    return value


def failed(answer: Answer, *parts: str) -> None:
    """Claim an `AJ-Error`, whose text has these parts."""
    _told(answer, "AJ-Error", answer.error if answer.terminate is None else None, parts)


def terminated(answer: Answer, *parts: str) -> None:
    """Claim an `AJ-Terminate`, whose text has these parts."""
    _told(answer, "AJ-Terminate", answer.terminate, parts)


def _told(answer: Answer, header: str, text: str | None, parts: tuple[str, ...]) -> None:
    about = f" with {' and '.join(repr(part) for part in parts)} in its text" if parts else ""
    says(text is not None and all(part in text for part in parts), f"the header {header}{about}", answer.text)
