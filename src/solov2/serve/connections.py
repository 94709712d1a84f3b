"""Connections of clients who are slow on purpose are closed, which uvicorn by itself does not do."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def guarded(idle_s: float) -> type[H11Protocol]:
    """Uvicorn's protocol with a patience.

    Args:
        idle_s: seconds in which the head of a request has to arrive, and in which a client has to take something
            of its answer. The body's time is limited where it is read.
    """

    class Guarded(H11Protocol):
        """A connection that is closed when nothing comes of it."""

        _lost = False
        _head: asyncio.TimerHandle | None = None
        _reading: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._lost = True
            _stop(self._head)
            _stop(self._reading)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            _stop(self._reading)
            self._reading = self.loop.call_later(idle_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _stop(self._reading)

        def _await_head(self) -> None:
            if self._lost or (self.cycle is not None and not self.cycle.response_complete):
                _stop(self._head)
                self._head = None
            elif self._head is None:
                self._head = self.loop.call_later(idle_s, self._end)

        def _end(self, left_before: int = -1) -> None:
            """Closes the connection; that of one who leaves the rest of his answer lying would never close."""
            left = self.transport.get_write_buffer_size()
            if left == left_before:
                self.transport.abort()
            else:
                self.transport.close()
                self._head = self.loop.call_later(idle_s, self._end, left)

    return Guarded


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
