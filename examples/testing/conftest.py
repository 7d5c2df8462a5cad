"""The fixtures for handlers on a real server, with a real bridge; all that an application's `conftest.py` needs."""

pytest_plugins = ["aj_sdk.testing.fixtures"]
