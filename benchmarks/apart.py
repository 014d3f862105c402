"""Work in a process of its own: a load must not wait for what its benchmark does meanwhile, nor the other way round."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar, cast

from benchmarks.servers import TIMEOUT, ServerError

Result = TypeVar("Result")

# Beyond what any work here takes.
_LONGEST = 180.0
# A fork would share our terminal's progress line.
_CONTEXT = multiprocessing.get_context("spawn")


class Apart(Generic[Result]):
    """Work that is being done. Its result comes through a pipe."""

    def __init__(self, receiving: Connection) -> None:
        self._receiving = receiving
        self._receive(TIMEOUT)

    def result(self) -> Result:
        """Waits until it is done."""
        return cast(Result, self._receive(_LONGEST))

    def _receive(self, timeout: float) -> Any:
        if not self._receiving.poll(timeout):
            raise ServerError(f"nothing came of a client within {timeout:.0f} seconds")
        try:
            return self._receiving.recv()
        except EOFError:
            raise ServerError("a client has ended without a result") from None


@contextmanager
def apart(work: Callable[..., Result], *arguments: Any, **options: Any) -> Iterator[Apart[Result]]:
    """Has begun when this is entered, and is given up if it is left before the result was asked for."""
    receiving, sending = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(sending, work, arguments, options), daemon=True)
    process.start()
    sending.close()
    try:
        yield Apart(receiving)
    finally:
        process.terminate()
        process.join()
        receiving.close()


def _run(sending: Connection, work: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    # Ctrl-C ends the benchmark, which ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sending.send(None)
    sending.send(work(*arguments, **options))
