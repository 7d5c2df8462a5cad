"""Task signatures: ed25519 over the identity of a task, in hex, byte-compatible with the Go project.

Needs the extra `sign` (cryptography), loaded when a key is first used. Source: signatureMessage in the Go
project's task.go. Not covered: dependencies, state, tries and result.
"""

from base64 import b64encode
from importlib import import_module
from types import ModuleType
from typing import Final

from aj_sdk.errors import SignatureError, UsageError
from aj_sdk.wire.task import TaskRecord

__all__ = ["Signer", "Verifier", "signature_message"]

_KEY_BYTES: Final = 32
_SIGNATURE_HEX: Final = 128

# The curve of RFC 8032: -x^2 + y^2 = 1 + d x^2 y^2 modulo p.
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_DOUBLINGS: Final = 3
"""The curve has 8 points of small order: three doublings take each of them to the neutral one."""


def signature_message(task: TaskRecord) -> bytes:
    """Return the bytes that a signature covers.

    Raises:
        SignatureError: the task has no queue yet, or one with a colon, which would make the message ambiguous
            (a colon may occur in a type).
    """
    if not task.queue:
        raise SignatureError(task.id, "signing a task requires the queue to be set")
    if ":" in task.queue:
        raise SignatureError(task.id, f"queue name {task.queue!r} has a colon, which a signature does not allow")
    payload = b64encode(task.payload or b"").decode("ascii")
    deadline = 0 if task.deadline_ns is None else task.deadline_ns
    return f"{task.id}:{task.queue}:{task.type}:{task.max_tries}:{task.created_ns}:{deadline}:{payload}".encode()


class Signer:
    """Signs tasks with a private key.

    Args:
        seed_hex: the 32-byte seed in hex, as the Go project keeps it in files.

    Raises:
        UsageError: it is not such a seed, or the extra `sign` is not installed.
    """

    def __init__(self, seed_hex: str) -> None:
        keys = _ed25519()
        self._key = keys.Ed25519PrivateKey.from_private_bytes(_key_bytes(seed_hex, "signing seed"))

    @property
    def public_key_hex(self) -> str:
        """The public key that verifies what this signer signs, in hex."""
        return str(self._key.public_key().public_bytes_raw().hex())

    def sign(self, task: TaskRecord) -> TaskRecord:
        """Return the task with its signature.

        Raises:
            SignatureError: it is already signed, or cannot be.
        """
        if task.signature:
            raise SignatureError(task.id, "task is already signed")
        return task.replace(signature=self._key.sign(signature_message(task)).hex())


class Verifier:
    """Verifies tasks against one or more public keys.

    Args:
        keys_hex: 32-byte public keys in hex; any one of them may have signed, so that keys can be changed.
        optional: take a task without a signature too; one that is there must be right.

    Raises:
        UsageError: there is none, one is not such a key, or one that anybody could sign for, or the extra `sign` is
            not installed.
    """

    def __init__(self, *keys_hex: str, optional: bool = False) -> None:
        self.optional = optional
        if not keys_hex:
            raise UsageError("verifying signatures needs at least one public key")
        keys = _ed25519()
        self._keys = [
            keys.Ed25519PublicKey.from_public_bytes(_strong(_key_bytes(key, "public key"))) for key in keys_hex
        ]

    def verify(self, task: TaskRecord) -> None:
        """Accept a task with a valid signature, and one without where signatures are optional.

        Raises:
            SignatureError: the signature is missing, malformed or wrong.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra

        if not task.signature:
            if self.optional:
                return
            raise SignatureError(task.id, "task is not signed")
        if len(task.signature) != _SIGNATURE_HEX:
            raise SignatureError(task.id, "invalid task signature")
        try:
            signature = bytes.fromhex(task.signature)
        except ValueError:
            raise SignatureError(task.id, "invalid task signature") from None
        message = signature_message(task)
        for key in self._keys:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return
        raise SignatureError(task.id, "invalid task signature")


def _ed25519() -> ModuleType:
    try:
        return import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ImportError:
        raise UsageError("signatures need the extra `sign`: pip install 'asyncjobs-nats[sign]'") from None


def _key_bytes(text: str, what: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise UsageError(f"the {what} must be hex text") from None
    if len(key) != _KEY_BYTES:
        raise UsageError(f"the {what} must be 32 bytes in hex, not {len(key)}")
    return key


def _strong(key: bytes) -> bytes:
    """Refuse a public key that anybody can sign for, or nobody.

    For a point of small order a signature can be written down without a private key: with the neutral point itself
    64 fixed bytes fit every message, and OpenSSL accepts them (seen with cryptography 50).

    Raises:
        UsageError: it is no point of the curve, or one of small order.
    """
    y = int.from_bytes(key, "little") & (1 << 255) - 1
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if y >= _P or pow(x_squared, (_P - 1) // 2, _P) not in (0, 1):
        raise UsageError("the public key is no point of the curve ed25519; take the one that `ajc key view` shows")
    for _ in range(_DOUBLINGS):
        # The doubling of a point, as far as squares go: x and y apart would need a root.
        product = _D * x_squared * y * y
        doubled = 4 * x_squared * y * y * pow(1 + product, -2, _P) % _P
        y = (y * y + x_squared) * pow(1 - product, -1, _P) % _P
        x_squared = doubled
    if y == 1:
        raise UsageError("the public key is one that anybody can sign for (a point of small order); make another key")
    return key
