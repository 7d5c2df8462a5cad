"""A network that loses requests or answers, on cue: a `Transport` around a real one."""

from typing import Any

from aj_sdk.errors import OutcomeUnknownError
from aj_sdk.transport import Headers, Message, OnInterim, Transport

__all__ = ["LossyTransport"]


class LossyTransport:
    """Passes everything on, but loses what it is told to lose."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.lose_answers = 0
        self.lose_requests = 0
        self.only = ""
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Headers | None = None,
        timeout: float,  # noqa: ASYNC109 - as in Transport
        interim: OnInterim | None = None,
    ) -> Message:
        self.requests.append(subject)
        hit = subject.startswith(self.only)
        if hit and self.lose_requests:
            self.lose_requests -= 1
            raise OutcomeUnknownError(f"request to {subject}")
        answer = await self._inner.request(subject, data, headers=headers, timeout=timeout, interim=interim)
        if hit and self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknownError(f"request to {subject}")
        return answer
