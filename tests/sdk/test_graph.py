"""Graphs of tasks as values: who waits for whom, and what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aj_sdk.circles import find_circle
from aj_sdk.errors import CycleError, UsageError
from aj_sdk.graph import Graph, chain, chord, group, new_tasks
from aj_sdk.spec import TaskSpec, new_task
from aj_sdk.wire.state import TaskState
from aj_sdk.wire.times import NS_PER_S

NOW = 1_767_225_600 * NS_PER_S


def spec(name: str, **options: Any) -> TaskSpec:
    return TaskSpec("t", id=name, **options)


def ties(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {task.record.id: task.record.dependencies for task in new_tasks(graph, "Q", NOW)}


def test_a_chain_runs_one_after_another() -> None:
    assert ties(chain(spec("a"), spec("b"), spec("c"))) == {"a": (), "b": ("a",), "c": ("b",)}


def test_a_group_runs_side_by_side() -> None:
    assert ties(group(spec("a"), spec("b"))) == {"a": (), "b": ()}


def test_a_chord_gives_all_results_to_its_callback() -> None:
    tasks = new_tasks(chord([spec("a"), spec("b")], spec("c")), "Q", NOW)
    assert [(task.record.dependencies, task.record.load_dependencies) for task in tasks] == [
        ((), False),
        ((), False),
        (("a", "b"), True),
    ]
    assert ties(chord(group(spec("a"), spec("b")), spec("c"))) == {"a": (), "b": (), "c": ("a", "b")}


def test_parts_are_graphs_themselves() -> None:
    graph = chain(spec("a"), group(chain(spec("b"), spec("c")), spec("d")), group(spec("e"), spec("f")))
    assert ties(graph) == {
        "a": (),
        "b": ("a",),
        "c": ("b",),
        "d": ("a",),
        "e": ("c", "d"),
        "f": ("c", "d"),
    }
    assert len(graph) == 6


def test_a_graph_may_be_used_twice_in_another() -> None:
    twice = group(("t", 1), ("t", 2))
    tasks = new_tasks(chain(twice, twice), "Q", NOW)
    first, second, third, fourth = (task.record for task in tasks)
    assert third.dependencies == fourth.dependencies == (first.id, second.id)


def test_a_long_chain_is_no_trouble() -> None:
    assert find_circle({str(number): [str(number - 1)] for number in range(100_000)}) == ()


def test_tasks_of_a_graph_may_wait_for_others_too_and_are_blocked_then() -> None:
    tasks = new_tasks(chain(spec("a", dependencies=["x"]), spec("b", dependencies=["y"])), "Q", NOW)
    assert [task.record.dependencies for task in tasks] == [("x",), ("a", "y")]
    assert {task.record.state for task in tasks} == {TaskState.BLOCKED}


@pytest.mark.parametrize("make", [chain, group])
def test_nothing_is_no_graph(make: Any) -> None:
    with pytest.raises(UsageError, match="needs at least one part"):
        make()


def test_circles_double_ids_and_unique_keys_are_refused() -> None:
    with pytest.raises(CycleError, match="a -> b -> a"):
        ties(group(spec("a", dependencies=["b"]), spec("b", dependencies=["a"])))
    with pytest.raises(UsageError, match="two tasks of the graph have the same id"):
        ties(group(spec("a"), spec("a")))
    with pytest.raises(UsageError, match="unique key"):
        ties(group(spec("a", unique_key="k", unique_for=5)))
    with pytest.raises(UsageError, match="a task is a pair"):
        chain("text")  # type: ignore[arg-type]  # what is tested


def test_a_time_becomes_a_due_time_and_one_that_has_passed_means_now() -> None:
    at = datetime.fromtimestamp(NOW / NS_PER_S + 60, UTC)
    assert new_task(TaskSpec("t", run_at=at), "Q", NOW).due_ns == NOW + 60 * NS_PER_S
    assert new_task(TaskSpec("t", delay=1.5), "Q", NOW).due_ns == NOW + 1_500_000_000
    assert new_task(TaskSpec("t", delay=timedelta(minutes=2)), "Q", NOW).due_ns == NOW + 120 * NS_PER_S
    for spec_ in (TaskSpec("t"), TaskSpec("t", delay=0), TaskSpec("t", run_at=at - timedelta(hours=1))):
        assert new_task(spec_, "Q", NOW).due_ns is None


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"delay": 1, "run_at": datetime.now(UTC)}, "give one of run_at and delay"),
        ({"run_at": timedelta(1)}, "run_at must be a datetime"),
        ({"run_at": datetime(2030, 1, 1)}, "the run_at "),  # noqa: DTZ001 - what is tested
        ({"delay": float("nan")}, "no length of time"),
        ({"delay": "soon"}, "no length of time"),
        ({"delay": 60, "deadline": timedelta(seconds=59)}, "the deadline lies before"),
        ({"dependencies": "abc"}, "dependencies are a list"),
        ({"dependencies": [1]}, "a task id is text"),
        ({"dependencies": ["*"]}, "task id"),
        ({"dependencies": [str(number) for number in range(10_001)]}, "10,000 others"),
        ({"id": "a", "dependencies": ["b", "a"]}, "task a depends on itself"),
    ],
)
def test_a_wrong_wish_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        new_task(TaskSpec("t", **options), "Q", NOW)


def test_what_is_named_twice_is_waited_for_once_and_tasks_may_be_named_by_themselves() -> None:
    parent = new_task(spec("p"), "Q", NOW).record
    assert new_task(spec("c", dependencies=[parent, "p", "q"]), "Q", NOW).record.dependencies == ("p", "q")
