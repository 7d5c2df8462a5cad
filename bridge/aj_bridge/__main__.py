"""`python -m aj_bridge` is `aj-bridge`."""

from aj_bridge.entry import aj_bridge

__all__: list[str] = []

if __name__ == "__main__":
    aj_bridge()
