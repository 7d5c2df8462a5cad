"""`aj-bridge permissions`: what a role may do, as a server's configuration, as JSON, or as a command of `nsc`."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, Final

import click
import msgspec

from aj_bridge.faces.cli import output
from aj_bridge.faces.cli.frame import Globals, connection_options, leaf
from aj_bridge.faces.cli.params import DURATION
from aj_sdk.errors import AsyncJobsError
from aj_sdk.permissions import Act, Grant, Replies, Role, Scope, grants, replies
from aj_sdk.wire.names import CATCH_ALL, check_name
from aj_sdk.wire.times import format_duration, to_timedelta_ns

__all__ = ["User", "command", "permissions"]

_USER: Final = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_NKEY: Final = re.compile(r"U[A-Z2-7]{55}")
_SUBJECT: Final = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")


class _Roles(click.ParamType[tuple[Role, ...]]):
    """A role, or several joined by `+`."""

    name = "role"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Role, ...]:
        """Read the roles."""
        try:
            return tuple(dict.fromkeys(Role(part) for part in str(value).split("+")))
        except ValueError:
            known = ", ".join(Role)
            self.fail(
                f"{str(value)[:60]!r} is no role: take one of {known}, or several as in handler+producer", param, ctx
            )


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user of a server and what it may do.

    Attributes:
        name: how it is called.
        nkey: its public nkey, empty for a name and a password.
        roles: what it is.
        scope: what it is narrowed to.
    """

    name: str
    nkey: str
    roles: tuple[Role, ...]
    scope: Scope

    def grants(self) -> list[Grant]:
        """Return what its roles need, each subject once."""
        found = {
            (grant.act, grant.subject): grant for role in reversed(self.roles) for grant in grants(role, self.scope)
        }
        order = [(grant.act, grant.subject) for role in self.roles for grant in grants(role, self.scope)]
        return [found[place] for place in dict.fromkeys(order)]

    def replies(self) -> Replies | None:
        """Return how it may answer: as the one of its roles that may most."""
        found = [each for each in (replies(role, self.scope) for role in self.roles) if each is not None]
        return max(found, key=lambda each: (each.most < 0, each.expires_ns), default=None)


@leaf(
    "permissions",
    "aj-bridge permissions bridge",
    "aj-bridge permissions producer handler viewer --queue EMAIL --type email:new",
    "aj-bridge permissions handler+producer --user mailer --json",
    "aj-bridge permissions bridge --context PROD --format nsc",
)
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True, type=_Roles())
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="Only this queue; may be repeated.")
@click.option(
    "--type",
    "types",
    metavar="TYPE",
    multiple=True,
    help="Handlers listen on, and bridges call, this route only: a type, a prefix, or '' for the catch-all; repeated.",
)
@click.option("--user", metavar="NAME", help="The user's name; without it the role's.")
@click.option("--nkey", metavar="KEY", help="The user's public nkey (U...), instead of a name and a password.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["conf", "json", "nsc"]),
    default="conf",
    show_default=True,
    help="A server's configuration, the same as JSON, or commands of nsc.",
)
@click.option("--json", "-j", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--make/--no-make",
    "makes",
    default=None,
    help="Whether streams, buckets and consumers may be made and changed; else bridges and admins may.",
)
@click.option(
    "--longest",
    type=DURATION,
    default="1h",
    show_default=True,
    help="How long a handler may take for its answer: the max run time of its queues.",
)
@click.option("--domain", metavar="NAME", help="The JetStream domain.")
@click.option("--api-prefix", metavar="SUBJECT", help="The subject prefix of the JetStream API; wins over the domain.")
@click.option("--event-prefix", metavar="SUBJECT", help="The subject prefix of JetStream's events.")
@click.option("--inbox-prefix", metavar="SUBJECT", help="The subject prefix of the user's inboxes.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    roles: Sequence[tuple[Role, ...]],
    queues: tuple[str, ...],
    types: tuple[str, ...],
    user: str | None,
    nkey: str | None,
    form: str,
    as_json: bool,
    makes: bool | None,
    longest: timedelta,
    **places: str | None,
) -> None:
    """Print the least permissions that a role needs, for nats-server; asks no server.

    ROLE is producer, bridge, handler, viewer or admin; a program that is two of them is written handler+producer. With
    --context a JetStream domain, prefixes and the inbox prefix come from there. Without --queue the permissions are for
    every stream of the account where they are for a queue's, so keep such an account for jobs alone. Who may make
    streams can copy what other streams hold: `ajc task initialize --all` makes them all, then --no-make will do.
    """
    if (user or nkey) and len(roles) > 1:
        raise click.UsageError("--user and --nkey are for one ROLE; run the command for each")
    if user is not None and not _USER.fullmatch(user):
        raise click.BadParameter("use 1 to 128 of the characters A-Z a-z 0-9 _ . @ -", param_hint="--user")
    if nkey is not None and not _NKEY.fullmatch(nkey):
        raise click.BadParameter("a user's public nkey is a U and 55 more of A-Z 2-7", param_hint="--nkey")
    if longest <= timedelta():
        raise click.BadParameter("must be more than nothing", param_hint="--longest")
    scope = Scope(queues=queues, types=types, makes=makes, longest_ns=to_timedelta_ns(longest))
    _check_names(scope)
    scope = _placed(scope, ctx, places)
    users = [User(name=user or "+".join(each), nkey=nkey or "", roles=each, scope=scope) for each in roles]
    _FORMS["json" if as_json else form](users)


def _check_names(scope: Scope) -> None:
    try:
        for queue in scope.queues:
            check_name(queue, "queue name")
        for task_type in scope.types:
            check_name(task_type or CATCH_ALL, "task type")
    except AsyncJobsError as err:
        raise click.UsageError(str(err)) from None


def _placed(scope: Scope, ctx: click.Context, places: Mapping[str, str | None]) -> Scope:
    """Say where JetStream is: options win over the context that is named."""
    for name, value in places.items():
        if value is not None and (not _SUBJECT.fullmatch(value) or (name == "domain" and "." in value)):
            raise click.BadParameter("must have neither wildcards nor spaces", param_hint=f"--{name.replace('_', '-')}")
    if ctx.find_root().ensure_object(Globals).context:
        known = connection_options(ctx)
        scope = msgspec.structs.replace(
            scope, api_prefix=known.js_prefix, event_prefix=known.js_event_prefix, inbox_prefix=known.inbox_prefix
        )
    if places["domain"]:
        scope = msgspec.structs.replace(scope, api_prefix=f"$JS.{places['domain']}.API")
    given = {name: value for name, value in places.items() if name != "domain" and value is not None}
    return msgspec.structs.replace(scope, **given)


def permissions(user: User) -> dict[str, Any]:
    """Return a user's permissions in the form of nats-server's configuration, which JSON is too."""

    def allowed(act: Act) -> dict[str, list[str]]:
        subjects = [grant.subject for grant in user.grants() if grant.act is act]
        # Said outright, because nothing at all would allow everything.
        return {"allow": subjects} if subjects else {"deny": [">"]}

    found: dict[str, Any] = {"publish": allowed(Act.PUBLISH), "subscribe": allowed(Act.SUBSCRIBE)}
    answers = user.replies()
    if answers is not None:
        found["allow_responses"] = {"max": answers.most, "expires": format_duration(answers.expires_ns)}
    return found


def _print_json(users: Sequence[User]) -> None:
    output.print_json(
        {
            "authorization": {
                "users": [
                    {**({"nkey": user.nkey} if user.nkey else {"user": user.name}), "permissions": permissions(user)}
                    for user in users
                ]
            }
        }
    )


def _print_conf(users: Sequence[User]) -> None:
    lines = ["authorization {", "  users: ["]
    for user in users:
        lines += ["    {", *(f"      {line}" for line in _conf_of(user)), "    }"]
    click.echo("\n".join([*lines, "  ]", "}"]))


def _conf_of(user: User) -> list[str]:
    if user.nkey:
        lines = [f"nkey: {user.nkey}"]
    else:
        variable = "NATS_PASSWORD_" + re.sub("[^A-Z0-9]", "_", user.name.upper())
        lines = [
            f"user: {json.dumps(user.name)}",
            f"password: ${variable}  # of the server's environment; better: nkey",
        ]
    lines.append("permissions: {")
    for act in Act:
        of_act = [grant for grant in user.grants() if grant.act is act]
        if not of_act:
            lines.append(f'  {act}: {{deny: [">"]}}')
            continue
        lines.append(f"  {act}: {{allow: [")
        for why, of_one in groupby(of_act, key=lambda grant: grant.why):
            lines.append(f"    # {why}")
            lines += [f"    {json.dumps(grant.subject)}" for grant in of_one]
        lines.append("  ]}")
    answers = user.replies()
    if answers is not None:
        lines += [
            "  # answer requests; the server remembers each one for so long",
            f'  allow_responses: {{max: {answers.most}, expires: "{format_duration(answers.expires_ns)}"}}',
        ]
    return [*lines, "}"]


def _print_nsc(users: Sequence[User]) -> None:
    for user in users:
        words = ["nsc", "add", "user", "--name", user.name]
        if user.nkey:
            words += ["--public-key", user.nkey]
        lines = [shlex.join(words)]
        for act, option in ((Act.PUBLISH, "pub"), (Act.SUBSCRIBE, "sub")):
            subjects = [grant.subject for grant in user.grants() if grant.act is act]
            allow = [f"--allow-{option} {shlex.quote(subject)}" for subject in subjects]
            lines += allow or [f"--deny-{option} {shlex.quote('>')}"]
        answers = user.replies()
        if answers is not None:
            lines.append(f"--allow-pub-response={answers.most} --response-ttl {format_duration(answers.expires_ns)}")
        click.echo(" \\\n  ".join(lines))


_FORMS: Final[Mapping[str, Callable[[Sequence[User]], None]]] = {
    "conf": _print_conf,
    "json": _print_json,
    "nsc": _print_nsc,
}
