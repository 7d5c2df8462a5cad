"""What an attacker makes of a signed task, by name, and what it is refused with."""

from collections.abc import Mapping
from typing import Final

from aj_sdk.wire.signing import Signer
from aj_sdk.wire.task import TaskRecord

__all__ = ["NOT_SIGNED", "ORDER", "WRONG", "attacks"]

NOT_SIGNED: Final = "task is not signed"
WRONG: Final = "invalid task signature"

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of the base point of ed25519 (RFC 8032): S plus it satisfies the same equation, and must not be taken."""


def attacks(signer: Signer, task: TaskRecord, *, other_type: str) -> Mapping[str, tuple[TaskRecord, str]]:
    """Return tasks that were made of signed ones without the key, each with the reason that refuses it.

    Args:
        signer: who signs.
        task: the task, not signed yet; it was created at an instant with nanoseconds.
        other_type: another type that has a handler.
    """
    signed = signer.sign(task)
    half = len(signed.signature) // 2
    point, scalar = signed.signature[:half], signed.signature[half:]
    malleable = (int.from_bytes(bytes.fromhex(scalar), "little") + ORDER).to_bytes(32, "little").hex()
    stranger = Signer("5a" * 32)
    return {
        "stripped": (signed.replace(signature=""), NOT_SIGNED),
        "cut short": (signed.replace(signature=signed.signature[:-2]), WRONG),
        "zeros": (signed.replace(signature="00" * 64), WRONG),
        "no hex": (signed.replace(signature="zz" * 64), WRONG),
        "by a stranger": (stranger.sign(task), WRONG),
        "as another task": (signed.replace(id=f"{signed.id}-again"), WRONG),
        "signed for another queue": (signer.sign(task.replace(queue="OTHER")).replace(queue=task.queue), WRONG),
        "of another type": (signed.replace(type=other_type), WRONG),
        "with another payload": (signed.replace(payload=b'"evil"'), WRONG),
        "with no payload": (signed.replace(payload=None), WRONG),
        "with more tries": (signed.replace(max_tries=signed.max_tries + 1), WRONG),
        "with a later deadline": (signed.replace(deadline_ns=2**62), WRONG),
        "with its nanoseconds cut to microseconds": (
            signed.replace(created_ns=signed.created_ns // 1000 * 1000),
            WRONG,
        ),
        "with a malleable S": (signed.replace(signature=point + malleable), WRONG),
        "with R of small order": (signed.replace(signature="01" + "00" * 31 + scalar), WRONG),
    }
