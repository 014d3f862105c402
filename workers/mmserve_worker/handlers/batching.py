"""Batches for models with code of their own: asked together where their owner says so, else one call after the other.

calls ──► all at once ──► a reply for each
              │ raised: each one alone, so that only the bad one fails
              └ not a reply for each: each one alone, this time and from now on
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmserve_worker.calls import Call, CallError, ModelSpec, Reply
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, logger
from mmserve_worker.handlers.options import is_batch_size_said

# Has the model answer calls that belong together; None where it has not answered each of them.
Ask = Callable[[Sequence[Call]], list[Reply] | None]
# The answer to a call whose model, of that name, has raised.
Refusal = Callable[[BaseException, str], Reply]


class Batching:
    def __init__(self, spec: ModelSpec, ask: Ask, refusal: Refusal) -> None:
        self._name = spec.name
        self._ask = ask
        self._refusal = refusal
        self._takes_batches = is_batch_size_said(spec.options)

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        if len(calls) > 1 and self._takes_batches:
            replies = self._together(calls)
            if replies is not None:
                return replies
        return [self._alone(call) for call in calls]

    def _together(self, calls: Sequence[Call]) -> list[Reply] | None:
        """None where the calls have to be asked for one by one: of a batch's error nobody knows whose it is."""
        try:
            replies = self._ask(calls)
        except RAISED_BY_MODELS:
            return None
        if replies is None:
            # It would be asked in vain, and every request answered twice, for as long as it lives.
            logger.warning("model %s does not answer batches as such: it gets one request at a time", self._name)
            self._takes_batches = False
        return replies

    def _alone(self, call: Call) -> Reply:
        try:
            replies = self._ask([call])
            if replies is None:
                raise CallError(424, "ModelException", "the handler has not returned a list of one answer")
            return replies[0]
        except RAISED_BY_MODELS as error:
            return self._refusal(error, self._name)
