"""The one table of permissions: what it holds for each role, and what a scope makes of it."""

import re

import pytest

from aj_sdk.permissions import Act, Role, Scope, grants, replies
from aj_sdk.wire import names
from aj_sdk.wire.times import NS_PER_S

NARROW = Scope(queues=("A", "B"), types=("email:", ""))


def subjects(role: Role, scope: Scope | None = None, act: Act | None = None) -> set[str]:
    return {grant.subject for grant in grants(role, scope) if act in (None, grant.act)}


@pytest.mark.parametrize("role", Role)
def test_each_permission_is_said_once_with_a_reason_and_is_a_subject(role: Role) -> None:
    found = grants(role)
    assert len({(grant.act, grant.subject) for grant in found}) == len(found)
    for grant in found:
        assert grant.why
        assert re.fullmatch(r"[$A-Za-z_][\w$*:-]*(\.[\w$*:-]+)*(\.>)?( q)?", grant.subject), grant


@pytest.mark.parametrize("role", Role)
def test_a_role_that_is_narrowed_to_queues_reaches_no_stream_by_a_wildcard(role: Role) -> None:
    allowed = {subject for subject in subjects(role, NARROW, Act.PUBLISH) if ".API." in subject}
    # But for consumers of one's own, of the task store.
    assert all("CHORIA_AJ_TASKS.*" in subject for subject in allowed if "*" in subject or ">" in subject)


@pytest.mark.parametrize("role", [Role.PRODUCER, Role.HANDLER, Role.VIEWER])
def test_a_role_that_changes_no_queues_makes_no_streams_unless_it_is_told_to(role: Role) -> None:
    making = re.compile(r"\.(STREAM|CONSUMER)\.(CREATE|UPDATE|DELETE)\.")
    assert not any(making.search(subject) for subject in subjects(role))


@pytest.mark.parametrize("role", [Role.PRODUCER, Role.BRIDGE])
def test_making_streams_is_allowed_or_left_out_on_request(role: Role) -> None:
    made = subjects(role, Scope(makes=True)) - subjects(role, Scope(makes=False))
    assert "$JS.API.STREAM.CREATE.*" in made
    assert all(re.search(r"\.(STREAM|CONSUMER)\.(CREATE|UPDATE)\.", subject) for subject in made)


def test_a_handler_publishes_nothing_and_listens_in_the_queue_group_alone() -> None:
    assert subjects(Role.HANDLER, NARROW, Act.PUBLISH) == set()
    called = {subject for subject in subjects(Role.HANDLER, NARROW) if subject.startswith("CHORIA_AJ.H.")}
    assert called == {"CHORIA_AJ.H.T.email: q", "CHORIA_AJ.H.T.catchall q"}


def test_a_prefix_stands_before_every_request_to_jetstream_and_every_write_to_a_bucket() -> None:
    scope = Scope(api_prefix="JS.jobs.API", event_prefix="JS.jobs.EVENT", inbox_prefix="_INBOX_app")
    found = subjects(Role.BRIDGE, scope)
    assert {subject for subject in found if subject.startswith("$")} == {
        *(f"$SRV.{verb}{who}" for verb in ("PING", "INFO", "STATS") for who in ("", ".aj-bridge", ".aj-bridge.*")),
        "$JS.ACK.*.WORKERS.>",
        "$JS.ACK.*.*.*.WORKERS.>",
    }
    assert {"JS.jobs.API.$KV.CHORIA_AJ_ELECTIONS.*", "_INBOX_app.>"} <= found
    assert "JS.jobs.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.WORKERS" in found


def test_replies_are_bounded_in_time_because_the_server_remembers_each_request_for_so_long() -> None:
    for role in Role:
        allowed = replies(role, Scope(longest_ns=90 * NS_PER_S))
        assert allowed is None or 0 < allowed.expires_ns <= 90 * NS_PER_S
    handler = replies(Role.HANDLER)
    assert handler is not None
    assert handler.most == -1  # heartbeats come before the result


def test_the_roles_together_know_every_subject_of_ours() -> None:
    allowed = {subject for role in Role for subject in subjects(role)}
    for subject in (
        names.TASK_SUBJECTS,
        names.SCHEDULE_SUBJECTS,
        names.DEAD_SUBJECTS,
        names.DEPS_SUBJECTS,
        names.ATTEMPTS_SUBJECTS,
        names.PROGRESS_SUBJECTS,
        names.CANCEL_SUBJECTS,
        names.TASK_STATE_EVENTS,
        names.HANDLER_SUBJECTS,
    ):
        assert subject in allowed
