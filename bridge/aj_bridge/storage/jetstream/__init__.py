"""Storage in JetStream, over the transport seam: `open_storage` binds a queue."""

from aj_bridge.storage.jetstream.binding import JetStreamStorage, open_storage
from aj_bridge.storage.jetstream.items import PULL_S, SHORT_PULL_S

__all__ = ["PULL_S", "SHORT_PULL_S", "JetStreamStorage", "open_storage"]
