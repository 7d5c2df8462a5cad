"""KSUIDs: k-sortable ids of 27 characters, as the Go project makes them for tasks and events."""

from cyksuid.v2 import ksuid

__all__ = ["new_id"]


def new_id() -> str:
    """Make a new id from the current second and 128 random bits (2 us; a pure Python library takes 36)."""
    return str(ksuid())
