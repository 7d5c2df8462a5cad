"""The public face: what `aj_sdk` promises, and what importing it costs."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import aj_sdk

MODULES = sorted(module.name for module in pkgutil.walk_packages(aj_sdk.__path__, "aj_sdk."))
BOUND_HERE = {"service", "services"}
"""Made of the default registry in `aj_sdk` itself; all else comes from a module."""

OPTIONAL = ("click", "cryptography", "jsonschema", "prometheus_client", "pydantic", "rich", "uvloop")


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_what_is_promised_is_exported_by_a_module_under_the_same_name() -> None:
    promised = set(aj_sdk.__all__) - BOUND_HERE
    exports = {export: load(name) for name in MODULES for export in getattr(load(name), "__all__", ())}

    assert promised <= exports.keys()
    assert not [name for name in promised if getattr(exports[name], name) is not getattr(aj_sdk, name)]
    assert aj_sdk.service == aj_sdk.services.service


def test_importing_it_loads_no_optional_package_and_sets_up_nothing() -> None:
    look = f"""
import logging, sys
import aj_sdk
print([name for name in {OPTIONAL!r} if name in sys.modules], logging.getLogger().handlers)
"""
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)

    assert found.stdout == "[] []\n"
