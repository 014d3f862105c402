"""What becomes of the requests that a worker held when it died."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from mmserve.errors import ModelFailed
from mmserve.scheduling.request import Request
from mmserve.supervision.worker import Exit

# A request that has killed this many workers, or that this many were stuck with, is not given to another.
_MOST_DEATHS = 2
# SIGKILL comes from elsewhere, from an operator or from a kernel that is short of memory, and may hit the same request
# twice by chance: measured as one request in a hundred kills.
_MOST_KILLS = 3


def sort_out(requests: Iterable[Request], end: Exit, *, taken: bool) -> tuple[list[Request], bool]:
    """Those to try once more, and whether any of all had never been lost before.

    Those that others have died of before are answered.
    """
    again = []
    news = False
    for request in requests:
        news = news or not request.deaths
        request.deaths += taken
        if request.future.done():
            continue
        if request.deaths < (_MOST_KILLS if end.signal == signal.SIGKILL else _MOST_DEATHS):
            again.append(request)
        else:
            message = f"The worker {end} while it answered this request, as did each one before it that was given it."
            request.future.set_exception(ModelFailed("WorkerDiedException", message))
    return again, news
