"""Calling a Python function in the bridge's own process; the same functions that a handler's process has."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from aj_bridge.engine.clock import Clock
from aj_bridge.engine.progress import ProgressTeller
from aj_bridge.engine.router import Invocation, Outcome
from aj_sdk.calling import begin, within_deadline
from aj_sdk.handling import SendInterim, Task
from aj_sdk.lifespan import Lifespan
from aj_sdk.services import Service
from aj_sdk.threads import Threads
from aj_sdk.wire.call import Call, Failed, handler_deadline_ns
from aj_sdk.wire.interim import Interim
from aj_sdk.wire.names import PROTOCOL
from aj_sdk.wire.times import NS_PER_S

__all__ = ["Functions"]

_MAX_OVERDUE: Final = 100
_CANCEL_TIMEOUT_S: Final = 2.0


class Functions:
    """`Dispatch` by calling the route's function.

    A coroutine is cancelled at its deadline, and when its call is. A plain function runs in a thread and can't be: it
    runs to its end, and nobody looks at what it returns. When a hundred of them outlast their deadlines, further calls
    of plain functions fail until one has ended.

    Args:
        clock: the time.
        teller: tells others of the progress.
    """

    def __init__(self, clock: Clock, teller: ProgressTeller) -> None:
        self._clock = clock
        self._teller = teller
        self._threads = Threads()
        self._overdue = 0
        self._lifespans: dict[int, Lifespan] = {}

    async def begin(self, services: Iterable[Service], unless: asyncio.Event | None = None) -> None:
        """Set up what the functions need.

        Args:
            services: the functions.
            unless: set when the bridge is to end, which may be long before all is set up.

        Raises:
            LifespanError: that failed; what was set up before is taken down by `close`.
        """
        for common in {id(service.common): service.common for service in services}.values():
            self._lifespans[id(common)] = Lifespan(common.lifespan)
            await self._lifespans[id(common)].begin(unless)

    async def close(self) -> None:
        """Take down what the functions needed, and let the threads end, each when its call does."""
        while self._lifespans:
            await self._lifespans.popitem()[1].end()
        self._threads.close()

    async def call(self, invocation: Invocation) -> Outcome:
        """See `Dispatch`."""
        service = invocation.route.service
        assert service is not None
        if not service.is_async and self._overdue >= _MAX_OVERDUE:
            return Failed(f"{self._overdue} calls of functions outlast their deadlines, and no more are begun")
        task = self._task(invocation)
        task.sends(self._telling(invocation))
        work = begin(service, task, self._threads)
        try:
            return await within_deadline(work, task)
        finally:
            task.sends(None)
            if not work.done():
                await self._outlasting(service, work)

    def _task(self, invocation: Invocation) -> Task:
        now_ns = self._clock.now_ns()
        deadline_ns = handler_deadline_ns(now_ns, now_ns + invocation.run_time_ns)
        call = Call(
            task=invocation.task,
            invocation=invocation.id,
            try_=invocation.task.tries,
            protocol=PROTOCOL,
            deadline_ns=deadline_ns,
            timeout_ns=deadline_ns - now_ns,
            trace=invocation.trace,
        )
        service = invocation.route.service
        assert service is not None
        return Task(
            call,
            expires=self._clock.monotonic() + (deadline_ns - now_ns) / NS_PER_S,
            logger=service.logger,
            clock=self._clock.monotonic,
            lifespan=span.value if (span := self._lifespans.get(id(service.common))) is not None else None,
        )

    def _telling(self, invocation: Invocation) -> SendInterim:
        loop = asyncio.get_running_loop()

        def send(interim: Interim) -> None:
            with contextlib.suppress(RuntimeError):  # from a thread that outlives the loop
                loop.call_soon_threadsafe(self._teller.tell, invocation, interim)

        return send

    async def _outlasting(self, service: Service, work: asyncio.Future[Outcome]) -> None:
        if service.is_async:
            # It was cancelled, and has a moment to clean up; one that does not end on that is left behind.
            await asyncio.wait({work}, timeout=_CANCEL_TIMEOUT_S)
            return
        self._overdue += 1
        work.add_done_callback(self._ended_at_last)

    def _ended_at_last(self, _work: asyncio.Future[Outcome]) -> None:
        self._overdue -= 1
