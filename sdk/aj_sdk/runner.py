"""Runs handlers: listens for their requests, calls them, answers.

The thin shell around `responder`: it knows the event loop, threads, signals and nats-py, and decides nothing about
tasks.
"""

import asyncio
import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aj_sdk.again import Again
from aj_sdk.calling import begin, within_deadline
from aj_sdk.connect import ConnectOptions, connect
from aj_sdk.discovery import EndpointStats
from aj_sdk.errors import NotConnectedError, SignatureError, StoreError, UsageError
from aj_sdk.fast import open_transport
from aj_sdk.handler_service import HandlerService
from aj_sdk.handling import Task
from aj_sdk.keys import load_key
from aj_sdk.lifespan import Lifespan
from aj_sdk.responder import close_call, open_call
from aj_sdk.services import DEFAULT_SERVICES, Service, Services
from aj_sdk.signs import Signs
from aj_sdk.threads import Threads
from aj_sdk.transport import Message, NatsTransport, drain, settle
from aj_sdk.unwanted import UNWANTED, UNWANTED_SUBJECTS, UnwantedCalls
from aj_sdk.wire.call import Failed, Reply, Terminated
from aj_sdk.wire.names import H_ERROR, H_TERMINATE
from aj_sdk.wire.signing import Verifier

__all__ = ["DEFAULT_CONCURRENCY", "DEFAULT_GRACE_S", "HandlerStats", "Runner"]

DEFAULT_CONCURRENCY: Final = 100
DEFAULT_GRACE_S: Final = 30.0
DEFAULT_BACKLOG: Final = 1000

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_DRAIN_TIMEOUT_S: Final = 5.0
_CANCEL_TIMEOUT_S: Final = 2.0

_SHUTTING_DOWN: Final = Failed("handler is shutting down")

_LOG: Final = logging.getLogger("aj_sdk")


class HandlerStats(msgspec.Struct, frozen=True):
    """What a handler did since its runner started.

    Attributes:
        requests: requests that came.
        errors: those that were answered with an error or a terminate, and those that could not be answered.
        in_flight: calls that run now; one that outran its deadline counts until it ends.
    """

    requests: int
    errors: int
    in_flight: int


class _Lane:
    """One service's subscription, slots and figures."""

    def __init__(self, service: Service, concurrency: int) -> None:
        self.service = service
        self.slots = asyncio.Semaphore(min(service.concurrency or concurrency, concurrency))
        self.subscription: Subscription | None = None
        self.requests = 0
        self.errors = 0
        self.in_flight = 0
        self.answered = EndpointStats()


class Runner:
    """Handles the requests of the registered services, as a context manager or by `run`.

    Entering it begins the lifespan of the services and subscribes; when that is done the server knows all
    subscriptions, and `nats micro` finds the handlers where the login may listen on `$SRV.>`. Leaving it

    1. takes the subscriptions back: nothing new comes, but what the server had sent is handled,
    2. gives the requests in hand (and those that wait for a slot) `grace` seconds to finish,
    3. cancels the rest and answers each `handler is shutting down`, so that its task is retried soon,
    4. flushes, so that all answers have left,
    5. ends the lifespan, and closes the connection if the runner opened it.

    A coroutine whose reply the bridge does not want any more is cancelled; a plain function sees it (`Task.cancelled`).
    A coroutine that outruns its deadline is cancelled and its request answered `deadline exceeded`. A thread can't be
    cancelled: the request of a plain function is answered at the deadline all the same, but the function runs on and
    keeps its slot until it ends.

    Args:
        connection: a connection that the program has, which is left open; or options, to make one.
        services: the handlers; None for those registered with `aj_sdk.service`.
        concurrency: how many requests are handled at a time, over all handlers.
        grace: seconds that requests in hand have to finish when the runner stops.
        backlog: how many requests may wait for a slot; further ones are answered with an error at once. One whose
            deadline passes while it waits is answered then.
        on_ready: called when the subscriptions stand.
        verify: public key of who signs the tasks, in hex or a file with it, or several keys of which any may have
            signed. A task that is not signed, or wrongly, is answered with a terminate, and its handler not called.

    Raises:
        UsageError: an option is wrong, or no handler is registered.
    """

    def __init__(
        self,
        connection: NatsClient | ConnectOptions,
        services: Services | None = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        grace: float = DEFAULT_GRACE_S,
        backlog: int = DEFAULT_BACKLOG,
        on_ready: Callable[[], None] | None = None,
        verify: str | Sequence[str] | None = None,
    ) -> None:
        if concurrency < 1:
            raise UsageError("concurrency must be at least 1")
        if not 0 <= grace < float("inf"):
            raise UsageError("grace must be 0 or more seconds")
        if backlog < 0:
            raise UsageError("backlog must not be negative")
        chosen = DEFAULT_SERVICES if services is None else services
        if not len(chosen):
            raise UsageError('no handlers are registered; write one with @service("some:type")')
        self._verifier = _verifier(verify)
        self._given = connection
        self._services = chosen
        self._concurrency = concurrency
        self._grace = grace
        self._backlog = backlog
        self._on_ready = on_ready
        self._slots = asyncio.Semaphore(concurrency)
        self._lanes = tuple(_Lane(service, concurrency) for service in chosen)
        self._threads = Threads()
        self._unwanted = UnwantedCalls()
        self._signs = Signs(self._publish)
        self._lifespan = Lifespan(chosen.common.lifespan)
        self._keeping: list[asyncio.Task[None]] = []
        self._again: Again
        self._told: Subscription | None = None
        self._shown: HandlerService | None = None
        self._connection: NatsClient
        self._transport: NatsTransport
        self._closing = contextlib.AsyncExitStack()
        self._requests: set[asyncio.Task[None]] = set()
        self._work: set[asyncio.Future[Reply]] = set()
        self._waiting = 0
        self._asked = asyncio.Event()
        self._quiet = asyncio.Event()
        self._hurried = False
        self._stopping = False
        self._stopped = False
        self._lost = False

    @property
    def stats(self) -> Mapping[str, HandlerStats]:
        """Figures by task type; `catchall` for the handler of all types."""
        return {lane.service.shown: HandlerStats(lane.requests, lane.errors, lane.in_flight) for lane in self._lanes}

    def stop(self) -> None:
        """Ask `run` to stop; asked a second time, it does not wait for the requests in hand any more."""
        if self._asked.is_set():
            self._hurried = True
            self._quiet.set()
        self._asked.set()

    async def run(self, *, signals: bool = True) -> None:
        """Handle requests until `stop` is called or a signal comes.

        Args:
            signals: stop on SIGTERM and SIGINT. The second one ends without waiting for the requests in hand, a
                third one does what it does by default. False leaves signals to the program, as does a thread other
                than the main one.

        Raises:
            NotConnectedError: no connection could be made, or the server closed it for good.
            LifespanError: the lifespan of the services failed at its start.
        """
        with self._stop_on_signals() if signals else contextlib.nullcontext():
            async with self:
                await self._asked.wait()
        if self._lost:
            raise NotConnectedError("the server closed the connection for good; see the log for its reason")

    async def __aenter__(self) -> Self:
        if self._stopping:
            raise UsageError("a runner runs once; make another one")
        if isinstance(self._given, ConnectOptions):
            self._connection = await connect(self._given, on_closed=self._on_closed)
        else:
            self._connection = self._given
        try:
            # On a connection of our own requests are read, and answers written, by ourselves, in half of the time.
            own = isinstance(self._given, ConnectOptions)
            opening = open_transport(self._connection, fast=own, replies=False)
            self._transport = await self._closing.enter_async_context(opening)
            if not await self._lifespan.begin(self._asked):
                return self
            self._again = Again(self._connection)
            self._keeping = [
                asyncio.create_task(self._signs.keep(), name="signs of life"),
                asyncio.create_task(self._again.keep(), name="answers once more"),
            ]
            self._told = await self._connection.subscribe(UNWANTED_SUBJECTS, cb=self._on_unwanted)
            for lane in self._lanes:
                lane.subscription = await self._transport.listen(
                    lane.service.subject, lane.service.queue_group, functools.partial(self._on_request, lane)
                )
            await self._show()
            await settle(self._connection)
            _LOG.info("ready: %s", ", ".join(lane.service.shown for lane in self._lanes))
            if self._on_ready is not None:
                self._on_ready()
        except BaseException as err:
            await self.__aexit__(type(err), err, None)
            if isinstance(err, nats.errors.Error):
                raise NotConnectedError(f"subscribing failed: {err}") from err
            raise
        return self

    async def _show(self) -> None:
        self._shown = HandlerService(
            self._connection,
            [lane.service for lane in self._lanes],
            [lane.answered for lane in self._lanes],
            lambda: [lane.in_flight for lane in self._lanes],
        )
        await self._shown.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._finish()
        finally:
            for request in self._requests:
                request.cancel()
            for keeping in self._keeping:
                keeping.cancel()
            await self._lifespan.end()
            self._threads.close()
            await self._closing.aclose()
            if isinstance(self._given, ConnectOptions):
                # nats-py passes on that it could not send what was left, when the server is away.
                with contextlib.suppress(nats.errors.Error, OSError):
                    await self._connection.close()

    async def _finish(self) -> None:
        """Stop, in the order that the class describes."""
        self._stopping = True
        ends = asyncio.get_running_loop().time() + self._grace
        if self._shown is not None:
            await self._shown.close()
        await self._unsubscribe()
        if self._requests:
            _LOG.info("stopping: %d requests in hand", len(self._requests))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                while self._requests and not self._hurried:
                    self._quiet.clear()
                    await self._quiet.wait()
        self._stopped = True
        if self._requests:
            _LOG.warning("stopping: %d requests are cancelled, they were not finished in time", len(self._requests))
            # A task that is cancelled before its first step would never run, and so never answer.
            await asyncio.sleep(0)
            for request in self._requests:
                request.cancel()
        # Coroutines have a moment to clean up; one that does not end on being cancelled is left behind, as are threads.
        left = {*self._requests, *(work for work in self._work if isinstance(work, asyncio.Task))}
        if left:
            await asyncio.wait(left, timeout=_CANCEL_TIMEOUT_S)
        if self._told is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._told.unsubscribe()
        with contextlib.suppress(nats.errors.Error):
            if self._connection.is_connected:
                await settle(self._connection)

    async def _unsubscribe(self) -> None:
        for lane in self._lanes:
            subscription, lane.subscription = lane.subscription, None
            if subscription is None:
                continue
            try:
                # Without a server a drain would wait for its answer; nothing more can come anyway.
                if self._connection.is_connected:
                    async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                        await drain(self._connection, subscription)
                else:
                    await subscription.unsubscribe()
            except (nats.errors.Error, TimeoutError) as err:
                _LOG.warning("taking back the subscription of %s failed: %s", lane.service.shown, err)

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        before: dict[signal.Signals, Any] = {}

        def on_signal() -> None:
            if self._asked.is_set():
                restore()
            self.stop()

        def restore() -> None:
            while before:
                number, handler = before.popitem()
                loop.remove_signal_handler(number)
                if handler is not None:
                    signal.signal(number, handler)

        # Only the main thread may set signal handlers.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                loop.add_signal_handler(number, on_signal)
                before[number] = handler
        try:
            yield
        finally:
            restore()

    def _on_closed(self) -> None:
        if not self._stopping:
            self._lost = True
            self._asked.set()

    async def _on_unwanted(self, message: Msg) -> None:
        self._unwanted.on_message(message.subject)

    def _on_request(self, lane: _Lane, message: Message) -> None:
        """Take a message; returns at once, because the next one waits for that."""
        request = asyncio.create_task(self._handle(lane, message, time.monotonic(), time.time_ns()))
        self._requests.add(request)
        request.add_done_callback(self._on_answered)

    def _on_answered(self, request: asyncio.Task[None]) -> None:
        self._requests.discard(request)
        if self._stopping and not self._requests:
            self._quiet.set()

    async def _handle(self, lane: _Lane, message: Message, arrived: float, now_ns: int) -> None:
        """Handle one request from its arrival to its answer. Never raises."""
        lane.requests += 1
        if not message.reply:
            lane.errors += 1
            _LOG.warning("ignored a message on %s that nobody waits for: it has no reply subject", message.subject)
            return
        opened = open_call(
            message.headers,
            message.data,
            now_ns=now_ns,
            arrived=arrived,
            logger=lane.service.logger,
            lifespan=self._lifespan.value,
        )
        if isinstance(opened, Task):
            try:
                # A subscription that could not be taken back (the connection broke just then) may still bring some.
                signs = self._signs.of(opened, message.reply, automatic=lane.service.is_async)
                with self._unwanted.watching(opened), signs:
                    reply = _SHUTTING_DOWN if self._stopped else await self._reply(lane, opened)
            except asyncio.CancelledError:
                # We are cancelled by `_finish` alone, and then this task ends with its answer.
                reply = _SHUTTING_DOWN
            offered = bool(opened.protocol)
        else:
            _LOG.warning("refused a request on %s: %s", message.subject, opened)
            reply, offered = opened, False
        await self._answer(lane, message.reply, reply, arrived, offered=offered)

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        await self._connection.publish(subject, body, headers=headers)

    async def _answer(self, lane: _Lane, subject: str, reply: Reply, arrived: float, *, offered: bool) -> None:
        response = close_call(reply, max_payload=self._connection.max_payload, offered=offered)
        error = ""
        if response.headers:
            lane.errors += 1
            error = response.headers.get(H_TERMINATE) or response.headers.get(H_ERROR) or "an error without words"
        # Before it is sent: whoever has the answer and asks for the figures finds it in them.
        lane.answered.count(int((time.monotonic() - arrived) * 1e9), error)
        try:
            await self._transport.publish(subject, response.body, headers=response.headers)
        except (nats.errors.Error, StoreError) as err:
            _LOG.warning("an answer of %s could not be sent: %s", lane.service.shown, err)
        self._again.sent(subject, response.body, response.headers)

    async def _reply(self, lane: _Lane, task: Task) -> Reply:
        """Call the handler when there is a slot for it, within the deadline."""
        refusal = self._distrust(task) or await self._take_slot(lane, task)
        if refusal is not None:
            task.log.warning("%s", refusal.error)
            return refusal
        work = begin(lane.service, task, self._threads)
        self._work.add(work)
        work.add_done_callback(functools.partial(self._free_slot, lane))
        self._unwanted.begun(task, work)
        reply = await within_deadline(work, task)
        return UNWANTED if task.cancelled and work.cancelled() else reply

    def _distrust(self, task: Task) -> Terminated | None:
        """Say what is wrong with a task's signature, where signatures are asked for."""
        if self._verifier is not None:
            try:
                self._verifier.verify(task.record)
            except SignatureError as err:
                return Terminated(str(err))
        return None

    async def _take_slot(self, lane: _Lane, task: Task) -> Failed | None:
        """Wait for a slot of the handler's and one of the runner's; say why not when there is none in time."""
        if lane.slots.locked() or self._slots.locked():
            if self._waiting >= self._backlog:
                return Failed(f"handler is busy: {self._waiting} requests are waiting")
            self._waiting += 1
            try:
                async with asyncio.timeout(task.remaining):
                    await lane.slots.acquire()
                    try:
                        await self._slots.acquire()
                    except asyncio.CancelledError:
                        lane.slots.release()
                        raise
            except TimeoutError:
                return Failed("deadline passed before a slot was free")
            finally:
                self._waiting -= 1
        else:
            await lane.slots.acquire()
            await self._slots.acquire()
        if task.cancelled:
            lane.slots.release()
            self._slots.release()
            return UNWANTED
        lane.in_flight += 1
        return None

    def _free_slot(self, lane: _Lane, work: asyncio.Future[Reply]) -> None:
        self._work.discard(work)
        lane.in_flight -= 1
        lane.slots.release()
        self._slots.release()


def _verifier(verify: str | Sequence[str] | None) -> Verifier | None:
    if verify is None:
        return None
    return Verifier(*map(load_key, [verify] if isinstance(verify, str) else verify))
