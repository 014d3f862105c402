"""Why a model has no worker, and when one is tried again: at once, after a second, after two, up to a minute.

Until then requests are answered with the reason at once. After that the next one, or the supervisor where `minWorkers`
asks for it, starts one worker as a probe; what that worker does decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmserve.backoff import Backoff
from mmserve.errors import ModelFailed, NoMemory, ServingError, StoreUnavailable

_BACKOFF = Backoff(first=1.0, longest=60.0)
# Memory is short for as long as others need it, a store is away until it is back.
_PASSING = (NoMemory, StoreUnavailable)
# Deaths before anything was answered. One that a request was the occasion of counts one, since bad requests may come in
# a row and are answered for themselves; one without any counts two. Three of these, or six of those, are a crash loop.
_CRASH_LOOP = 6
_WITH_REQUEST, _WITHOUT_REQUEST = 1, 2
# Seconds after which a death says nothing of how the model starts: who is killed once an hour, by an operator or for
# want of memory, is not in a crash loop, although nobody has asked it anything in between.
EARLY = 60.0


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a model has no worker. Until `retry_at` (monotonic) nobody tries again."""

    status: int
    error_type: str
    message: str
    traceback: str
    attempts: int
    retry_at: float

    def error(self) -> ServingError:
        """An exception of its own for each caller: one that is raised again and again holds on to all their frames."""
        for passing in _PASSING:
            if self.error_type == passing.error_type:
                return passing(self.message)
        return ModelFailed(self.error_type, self.message, status=self.status)


class Failures:
    """What went wrong with one model's workers, and how often."""

    def __init__(self) -> None:
        self.last: LoadFailure | None = None
        # It loads, and dies of its first requests: only an answer says that it serves.
        self._dies_early = False
        self._early_deaths = 0
        # When a worker could not be had the last time.
        self._noted_at = 0.0

    def note(self, error: ServingError, traceback: str, now: float) -> LoadFailure:
        """A worker could not be had."""
        earlier = self.last
        self._noted_at = now
        if earlier is not None and now < earlier.retry_at:
            # Another worker of those that were started together.
            attempts, retry_at = earlier.attempts, earlier.retry_at
        else:
            attempts = 1 if earlier is None else earlier.attempts + 1
            # Which is not the model's fault, and may be over at any time.
            retry_at = now + _BACKOFF.after(1 if isinstance(error, _PASSING) else attempts)
        self.last = LoadFailure(error.status, error.error_type, str(error), traceback, attempts, retry_at)
        return self.last

    @property
    def none(self) -> bool:
        return self.last is None and not self._early_deaths

    def blocks(self, now: float) -> bool:
        return self.last is not None and now < self.last.retry_at

    def loaded(self) -> None:
        if not self._dies_early:
            self.last = None

    def answered(self, asked_at: float) -> None:
        """A worker that was asked for then has answered something.

        One that has been there for longer says nothing of those that fail to load beside it.
        """
        self._early_deaths = 0
        if self._dies_early or asked_at >= self._noted_at:
            self.last = None
        self._dies_early = False

    def died_early(self, *, with_request: bool) -> bool:
        """A worker died before it had answered anything. Says whether that makes a crash loop.

        While a crash loop is tried again, one death decides.
        """
        self._early_deaths += _WITH_REQUEST if with_request else _WITHOUT_REQUEST
        if self._early_deaths < _CRASH_LOOP and not self._dies_early:
            return False
        self._early_deaths = 0
        self._dies_early = True
        return True
