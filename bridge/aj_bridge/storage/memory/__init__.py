"""Storage in memory, with JetStream's semantics wherever the engine relies on them.

One `MemoryWorld` is the server that several bridges share; a `MemoryStorage` is one bridge's view of one queue, over a
`Link`. All time is the running loop's, so that a loop of virtual time drives it too.
"""

from aj_bridge.storage.memory.link import Fault, Faults, Link
from aj_bridge.storage.memory.storage import MemoryStorage
from aj_bridge.storage.memory.survey import MemorySurvey
from aj_bridge.storage.memory.world import MemoryWorld

__all__ = ["Fault", "Faults", "Link", "MemoryStorage", "MemorySurvey", "MemoryWorld"]
