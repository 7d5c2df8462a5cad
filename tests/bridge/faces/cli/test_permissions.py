"""`aj-bridge permissions`: what it prints, and what it refuses; whether a server obeys is tested in acceptance."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aj_bridge.faces.cli.main import aj_bridge_group


def run(*words: str, **environ: str) -> Result:
    return CliRunner().invoke(aj_bridge_group(), ["permissions", *words], env=environ)


def told(*words: str, **environ: str) -> Any:
    done = run(*words, "--json", **environ)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["authorization"]["users"]


def test_each_role_that_is_named_becomes_a_user() -> None:
    assert [user["user"] for user in told("producer", "bridge")] == ["producer", "bridge"]


def test_a_program_with_two_roles_has_the_permissions_of_both() -> None:
    [user] = told("handler+producer", "--user", "mailer")
    assert user["user"] == "mailer"
    assert "CHORIA_AJ.T.*" in user["permissions"]["publish"]["allow"]
    assert "CHORIA_AJ.H.T.* q" in user["permissions"]["subscribe"]["allow"]
    assert user["permissions"]["allow_responses"] == {"max": -1, "expires": "1h0m0s"}


def test_who_publishes_nothing_is_told_so_because_saying_nothing_would_allow_all() -> None:
    [user] = told("handler", "--longest", "5m")
    assert user["permissions"]["publish"] == {"deny": [">"]}
    assert user["permissions"]["allow_responses"]["expires"] == "5m0s"


def test_a_context_says_where_jetstream_is_and_options_win_over_it(tmp_path: Path) -> None:
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    context = {"url": "nats://127.0.0.1:1", "jetstream_domain": "hub", "inbox_prefix": "_INBOX_app"}
    (folder / "FAR.json").write_text(json.dumps(context))
    [user] = told("bridge", "--context", "FAR", XDG_CONFIG_HOME=str(tmp_path))
    assert "$JS.hub.API.INFO" in user["permissions"]["publish"]["allow"]
    assert "_INBOX_app.>" in user["permissions"]["subscribe"]["allow"]
    [user] = told("bridge", "--context", "FAR", "--api-prefix", "JS.x.API", XDG_CONFIG_HOME=str(tmp_path))
    assert "JS.x.API.INFO" in user["permissions"]["publish"]["allow"]


def test_an_nkey_stands_in_place_of_a_name_and_a_password() -> None:
    key = "U" + "A" * 55
    assert told("viewer", "--nkey", key)[0]["nkey"] == key
    printed = run("viewer", "--nkey", key).stdout
    assert f"nkey: {key}" in printed
    assert "password" not in printed


def test_commands_for_nsc_hold_each_permission_quoted() -> None:
    words = shlex.split(run("handler", "--type", "a:b", "--user", "h", "--format", "nsc").stdout)
    assert words[:5] == ["nsc", "add", "user", "--name", "h"]
    assert words[words.index("--deny-pub") + 1] == ">"
    assert "CHORIA_AJ.H.T.a:b q" in words
    assert words[-3:] == ["--allow-pub-response=-1", "--response-ttl", "1h0m0s"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["boss"], "take one of producer, bridge, handler, viewer, admin"),
        (["bridge", "--queue", "a.b"], "queue name 'a.b' is invalid"),
        (["bridge", "--type", "a*"], "task type 'a*' is invalid"),
        (["bridge", "--api-prefix", "$JS.>"], "must have neither wildcards nor spaces"),
        (["bridge", "--domain", "a.b"], "must have neither wildcards nor spaces"),
        (["bridge", "--user", 'x"y'], "use 1 to 128 of the characters"),
        (["bridge", "--nkey", "SUAX"], "a user's public nkey"),
        (["bridge", "viewer", "--user", "x"], "are for one ROLE"),
        (["handler", "--longest", "0s"], "must be more than nothing"),
    ],
)
def test_what_would_not_be_a_permission_is_refused(words: list[str], complaint: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.split())
