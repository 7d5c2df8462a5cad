"""All cases, in the order in which they are run."""

from typing import Final

from aj_bridge.faces.conformance import bridged, failures, lives, producing, results, timing
from aj_bridge.faces.conformance.cases import Case

__all__ = ["CASES", "PRODUCER_CASES"]

CASES: Final[tuple[Case, ...]] = tuple(
    case for group in (results, failures, timing, bridged, lives) for case in group.GROUP.cases
)
PRODUCER_CASES: Final[tuple[Case, ...]] = tuple(producing.GROUP.cases)
