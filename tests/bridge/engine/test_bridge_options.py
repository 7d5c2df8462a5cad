"""What a bridge can't be told to be."""

import pytest

from aj_bridge.engine.bridge import BridgeOptions, ServedQueue
from aj_sdk.errors import InvalidConfigError, InvalidNameError


def test_a_bridge_serves_at_least_one_queue_and_none_twice() -> None:
    with pytest.raises(InvalidConfigError, match="no queue to serve"):
        BridgeOptions(queues=())
    with pytest.raises(InvalidConfigError, match="queue A is there twice"):
        BridgeOptions(queues=(ServedQueue(name="A"), ServedQueue(name="B"), ServedQueue(name="A", weight=2)))


def test_a_queue_has_a_name_and_a_weight_that_can_be() -> None:
    with pytest.raises(InvalidNameError):
        ServedQueue(name="a.b")
    for weight in (0, -1, 1001):
        with pytest.raises(InvalidConfigError, match="queue A: weight must be 1 to 1000"):
            ServedQueue(name="A", weight=weight)
