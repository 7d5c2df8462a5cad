"""The public face: what `aj_sdk` promises, and what importing it costs."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import aj_sdk

MODULES = sorted(module.name for module in pkgutil.walk_packages(aj_sdk.__path__, "aj_sdk."))
BOUND_HERE = {"service", "services"}
"""Made of the default registry in `aj_sdk` itself; all else comes from a module."""

OPTIONAL = {"click", "cryptography", "jsonschema", "opentelemetry", "prometheus_client", "pydantic", "rich", "uvloop"}


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_what_is_promised_is_exported_by_a_module_under_the_same_name() -> None:
    promised = set(aj_sdk.__all__) - BOUND_HERE
    exports = {export: load(name) for name in MODULES for export in getattr(load(name), "__all__", ())}

    assert promised <= exports.keys()
    assert not [name for name in promised if getattr(exports[name], name) is not getattr(aj_sdk, name)]
    assert aj_sdk.service == aj_sdk.services.service


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import aj_sdk", {"nats", "aj_sdk.runner", "aj_sdk.client", "aj_sdk.admin"}),
        ("from aj_sdk import run, service, Task", {"aj_sdk.client", "aj_sdk.admin", "aj_sdk.store"}),
        ("from aj_sdk import Client, TaskSpec", {"aj_sdk.runner", "aj_sdk.admin", "aj_sdk.dead"}),
        ("from aj_sdk import *", OPTIONAL),
    ],
)
def test_importing_it_loads_what_is_needed_and_sets_up_nothing(statement: str, absent: set[str]) -> None:
    look = f"import logging, sys; {statement}; print(logging.getLogger().handlers, *sys.modules)"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    handlers, *loaded = found.stdout.split()

    assert handlers == "[]"
    assert "aj_sdk" in loaded
    assert not absent & set(loaded)


def test_a_name_that_is_not_promised_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'aj_sdk' has no attribute 'Clent'"):
        getattr(aj_sdk, "Clent")  # noqa: B009 - a type checker knows better
    assert set(aj_sdk.__all__) <= set(dir(aj_sdk))
