"""Why a request gets no result: an HTTP status and one line."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus


class RefusedError(Exception):
    """A request that is not answered with a result.

    Args:
        status: of the HTTP answer.
        message: one line: what it is, what was expected, what to do.
        retry_after: seconds after which the same request may be accepted; 0: the same request never will be.
    """

    def __init__(self, status: HTTPStatus, message: str, retry_after: int = 0) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's head says."""
        return {"Retry-After": str(self.retry_after)} if self.retry_after else {}


def bad(message: str) -> RefusedError:
    """A request that cannot be understood (400)."""
    return RefusedError(HTTPStatus.BAD_REQUEST, message)


def unusable(message: str) -> RefusedError:
    """A request that can be understood, but asks for what cannot be (422)."""
    return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message)


def too_large(message: str) -> RefusedError:
    """A request beyond a limit (413)."""
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def busy(message: str, retry_after: int = 1) -> RefusedError:
    """A request that may be accepted later (503)."""
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message, retry_after)


class Budget:
    """An amount that requests share; for the event loop's thread alone.

    Args:
        limit: of all together.
        message: for those who find it used up.
        retry_after: whole seconds after which there will probably be some left.
    """

    def __init__(self, limit: int, message: str, retry_after: Callable[[], int] = lambda: 1) -> None:
        self.limit = limit
        self.used = 0
        self._message = message
        self._retry_after = retry_after

    def take(self, amount: int) -> None:
        """Takes a share.

        Raises:
            RefusedError: 503, if there is not so much left.
        """
        if self.used + amount > self.limit:
            raise busy(self._message, self._retry_after())
        self.used += amount

    def give(self, amount: int) -> None:
        """Gives a share back."""
        self.used -= amount
