"""What the engine counts, and the seam to whoever shows it.

The names are those of the Go project's stats.go, so that existing dashboards keep working; those below `OWN` are ours.
"""

from typing import Final, Protocol

__all__ = ["Meter", "NoMeter"]

ITEM_CORRUPT: Final = "queue_item_corrupt_error_count"
TASK_NOT_FOUND: Final = "queue_task_not_found_error_count"
PAST_DEADLINE: Final = "queue_task_past_deadline_count"
PAST_MAX_TRIES: Final = "queue_task_past_max_tries_count"
POLLS: Final = "queue_poll_total"
POLL_ERRORS: Final = "queue_poll_error_total"
UPDATES: Final = "task_update_total"
UPDATE_ERRORS: Final = "task_update_error_total"
DEPENDENCIES_FAILED: Final = "task_dependencies_failed"
BUSY: Final = "handler_busy_count"
HANDLER_ERRORS: Final = "handler_error_total"
HANDLER_RUNTIME: Final = "handler_runtime"
ELECTION_CAMPAIGNS: Final = "election_campaigns"
ELECTION_LEADER: Final = "election_leader"
ELECTION_INTERVAL: Final = "election_interval_seconds"

OWN: Final = (
    REFUSED := "bridge_save_refused_total",
    DROPPED := "bridge_item_dropped_total",
    PARKED := "bridge_item_parked_total",
    NO_RESPONDERS := "bridge_no_responders_total",
    UNROUTED := "bridge_unrouted_total",
    TAKEN_OVER := "bridge_task_taken_over_total",
    STOPPED := "bridge_call_stopped_total",
    QUARANTINED := "bridge_quarantined_total",
    PUT_BACK := "bridge_item_put_back_total",
    SWEPT := "bridge_swept_total",
    SWEEP_SCANNED := "bridge_sweep_scanned_total",
    SWEEP_SECONDS := "bridge_sweep_seconds",
    SWEEP_WATCHED := "bridge_sweep_watched",
    CONCURRENCY := "bridge_concurrency",
    PAUSED := "bridge_paused",
    TRACE_DROPPED := "bridge_trace_dropped_total",
    TOO_LARGE := "bridge_task_too_large_total",
    STRAY_REPLIES := "bridge_stray_replies_total",
    IN_HAND := "bridge_in_hand",
    RUNNING := "bridge_running",
    WEIGHT := "bridge_queue_weight",
)


class Meter(Protocol):
    """Counts and times; must be cheap."""

    def inc(self, name: str, /, **labels: str) -> None:
        """Add one to a counter."""

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""

    def add(self, name: str, by: float, /, **labels: str) -> None:
        """Move a gauge up or down: several queues may share one."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add to a summary."""


class NoMeter:
    """Counts nothing."""

    def inc(self, name: str, /, **labels: str) -> None:
        """See `Meter`."""

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """See `Meter`."""

    def add(self, name: str, by: float, /, **labels: str) -> None:
        """See `Meter`."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """See `Meter`."""
