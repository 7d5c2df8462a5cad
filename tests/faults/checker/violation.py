"""What a rule finds: which invariant was broken, by which task, and how."""

from dataclasses import dataclass

__all__ = ["Violation"]


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """A broken invariant; `task` is empty where it is not of one task."""

    invariant: str
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.task or '-'}: {self.text}"
