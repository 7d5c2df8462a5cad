"""One act on many things: several at once, a progress bar for whoever watches, and what became of each."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from aj_sdk.errors import AsyncJobsError

__all__ = ["collect", "counting", "for_each", "progress_bar"]

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE: Final = 32


def progress_bar(console: Console, *, disable: bool = False) -> Progress:
    """Make the bar that all commands show for work of known length: what is done, how much of it, for how long.

    Args:
        console: where.
        disable: show nothing.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=disable)


async def collect(things: AsyncIterable[T], what: str) -> list[T]:
    """Collect what takes long to find, with a count for whoever watches.

    Args:
        things: what is found, one by one.
        what: what is done, for the count, which shows on a terminal only.
    """
    found: list[T] = []
    with counting(what, "found") as advance:
        async for thing in things:
            found.append(thing)
            advance()
    return found


@contextmanager
def counting(what: str, how: str) -> Iterator[Callable[[], None]]:
    """Show a count on a terminal while inside; gives what adds one to it.

    Args:
        what: what is done.
        how: what became of what is counted: `found`, `read`.
    """
    console = Console(stderr=True)
    text = "{task.description}: {task.completed:,} " + how
    columns = (SpinnerColumn(), TextColumn(text), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda: progress.advance(bar)


async def for_each(
    things: Sequence[T], act: Callable[[T], Awaitable[R]], what: str, *, at_once: int = _AT_ONCE
) -> tuple[list[R], list[AsyncJobsError]]:
    """Do something with each of many things.

    Args:
        things: what to do it with.
        act: what to do.
        what: what is done, for the progress bar, which shows on a terminal only.
        at_once: how many are under way at a time.

    Returns:
        What the act gave, in the order of the things, and the errors of those that it failed for.
    """
    done: dict[int, R] = {}
    errors: dict[int, AsyncJobsError] = {}
    numbered = iter(enumerate(things))
    console = Console(stderr=True)
    with progress_bar(console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=len(things))

        async def work() -> None:
            for number, thing in numbered:
                try:
                    done[number] = await act(thing)
                except AsyncJobsError as err:
                    errors[number] = err
                progress.advance(bar)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(things))):
                group.create_task(work())
    return [done[number] for number in sorted(done)], [errors[number] for number in sorted(errors)]
