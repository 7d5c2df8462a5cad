"""Storage in JetStream, over the transport seam: `open_storage` binds a queue."""

from aj_bridge.storage.jetstream.binding import JetStreamStorage, open_storage

__all__ = ["JetStreamStorage", "open_storage"]
