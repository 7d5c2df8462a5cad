"""Who owns a task: the headers that our saves of a record carry.

`AJ-Owner` names the bridge (a new id for each start), `AJ-Item` the very item that it holds. A Go worker's saves carry
neither, and it runs a record that has them as usual.
"""

from collections.abc import Mapping

import msgspec

from aj_sdk.wire.headers import find_header
from aj_sdk.wire.names import H_ITEM, H_OWNER, is_name

__all__ = ["ItemRef", "Stamp", "read_stamp"]

_MAX_DIGITS = 20


class ItemRef(msgspec.Struct, frozen=True, order=True):
    """One delivery of one item.

    Attributes:
        sequence: the item's stream sequence.
        delivery: how often the server has handed it out, 1 for the first time.
    """

    sequence: int
    delivery: int

    def __str__(self) -> str:
        """Write it as the header does."""
        return f"{self.sequence}.{self.delivery}"


class Stamp(msgspec.Struct, frozen=True):
    """The owner of a record and the item that it holds."""

    owner: str
    item: ItemRef

    def headers(self) -> dict[str, str]:
        """Return the headers of a save."""
        return {H_OWNER: self.owner, H_ITEM: str(self.item)}


def read_stamp(headers: Mapping[str, str] | None) -> Stamp | None:
    """Read a record's headers; None where there is no stamp, or one that cannot be read."""
    owner = find_header(headers, H_OWNER)
    sequence, _, delivery = (find_header(headers, H_ITEM) or "").partition(".")
    if owner is None or not is_name(owner) or not (_is_number(sequence) and _is_number(delivery)):
        return None
    return Stamp(owner, ItemRef(int(sequence), int(delivery)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
