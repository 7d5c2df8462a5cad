"""What may be imported from where: the SDK's promise, and `__all__` of every module."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import aj_sdk

PROMISE = {
    # signatures
    "SignatureError",
    "Signer",
    "Verifier",
    # writing handlers
    "RetryLater",
    "Services",
    "Task",
    "Terminate",
    "service",
    "services",
    # running them
    "Runner",
    "run",
    # producing and administering
    "Client",
    "Queue",
    "TaskFilter",
    "TaskRecord",
    "TaskSpec",
    "TaskState",
    "Graph",
    "Handle",
    "chain",
    "chord",
    "group",
    # what may go wrong there
    "AsyncJobsError",
    "CannotWaitError",
    "CycleError",
    "ConflictError",
    "DecodeError",
    "DuplicateHandlerError",
    "InvalidConfigError",
    "InvalidNameError",
    "LifespanError",
    "Middleware",
    "NotConnectedError",
    "OutcomeUnknownError",
    "PayloadError",
    "QueueFullError",
    "QueueNotFoundError",
    "RefusedError",
    "StoreError",
    "TaskExistsError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskStateError",
    "TaskTooLargeError",
    "UsageError",
    "__version__",
}

PACKAGES = ("aj_schemas", "aj_sdk", "aj_bridge")
NO_NAMES = {"aj_bridge.__main__"}
INSIDE = {
    "aj_bridge.faces.demo_handlers",  # a program; what it is made of is nobody else's business
    "aj_bridge.storage.memory.storage",  # its classes show through the storage's protocols
}


def modules() -> list[str]:
    found = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        found += [name, *(info.name for info in pkgutil.walk_packages(package.__path__, f"{name}."))]
    return [name for name in found if name not in NO_NAMES]


MODULES = modules()
every_module = pytest.mark.parametrize("name", MODULES)


def is_empty(module: ModuleType) -> bool:
    """Whether a package's `__init__` is a docstring only."""
    return hasattr(module, "__path__") and not inspect.getsource(module).strip().rpartition('"""')[2]


def test_the_sdk_exports_its_promise_and_nothing_else() -> None:
    assert set(aj_sdk.__all__) == PROMISE
    assert len(aj_sdk.__all__) == len(PROMISE)


@every_module
def test_all_names_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    if is_empty(module):
        assert not hasattr(module, "__all__")
        return
    assert isinstance(module.__all__, list)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name not in INSIDE])
def test_public_classes_and_functions_are_in_all(name: str) -> None:
    module = importlib.import_module(name)
    own = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
        and value.__name__ == each
    }
    assert own - set(getattr(module, "__all__", ())) == set()


def test_a_star_import_gives_the_promise() -> None:
    names: dict[str, object] = {}
    exec("from aj_sdk import *", names)
    assert set(names) - {"__builtins__"} == PROMISE


def packages(imports: str) -> set[str]:
    """Return the packages outside of the standard library that a process has loaded after an import statement."""
    code = f"import sys; {imports}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split()) - sys.stdlib_module_names


@pytest.mark.parametrize("imports", ["from aj_sdk import *", "import aj_sdk.blocking"])
def test_importing_the_sdk_loads_its_dependencies_and_what_these_load_and_nothing_else(imports: str) -> None:
    dependencies = packages("import nats, msgspec, cyksuid.v2")
    assert {"nats", "msgspec", "cyksuid"} <= dependencies
    assert not dependencies & {"aj_sdk", "aj_bridge", "cryptography"}
    assert packages(imports) - dependencies - {"nkeys"} == {"aj_sdk"}
