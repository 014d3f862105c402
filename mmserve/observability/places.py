"""Which models have series of their own: the busy ones, so that ten thousand models make no million of series."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Protocol

from mmserve.observability.stats import ModelStats

# Seconds between two arrangements, however often and by however many it is scraped: what is counted in less says little
# of how busy a model is.
_PERIOD = 10.0
# Seconds after which a model that nobody asks loses its place, and before which nobody takes it from one that is asked:
# no place has more than twelve models an hour, which bounds the series that whoever stores them has to keep.
_KEPT = 300.0
# So many times as busy as the least busy model with a place is one that takes it over: a hot model has to be seen, and
# models that are about as busy as each other would change places for ever.
_HOTTER = 10


class Observed(Protocol):
    """A model's queue and workers, as far as they are looked at here. Two of one name are added up.

    `requests` counts those that have come so far, `workers` those that there are by state, `memory` is theirs in bytes.
    All ten thousand are looked at in one turn of the event loop: a microsecond each is ten milliseconds.
    """

    stats: ModelStats

    @property
    def name(self) -> str: ...
    @property
    def requests(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def workers(self) -> Mapping[str, int]: ...
    @property
    def memory(self) -> int: ...


@dataclass(slots=True)
class _Place:
    stats: ModelStats
    since: float
    asked_at: float
    gone: bool = False


class Places:
    """`max_models` models have stats of their own, all others share `other`.

    Counts are never moved from one to the other: each series goes on from where it was, and what was counted in one
    stays there.
    """

    def __init__(self, max_models: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_models = max_models
        self._clock = clock
        self.other = ModelStats()
        self._places: dict[str, _Place] = {}
        # Of models that had a place: should they get one again, their series goes on and does not start anew, which is
        # taken for a fall or, if it has grown past where it was, for nothing at all.
        self._resting: dict[str, ModelStats] = {}
        # Requests of each model at the last arrangement.
        self._seen: dict[str, int] = {}
        self._arranged_at = float("-inf")

    def stats_of(self, name: str) -> ModelStats:
        """Where a model that has just come is counted: it gets a place if there is one."""
        place = self._places.get(name)
        if place is not None:
            return place.stats
        if len(self._places) < self._max_models:
            return self._give(name, self._clock()).stats
        return self.other

    def named(self) -> dict[str, ModelStats]:
        """The models with a place."""
        return {name: place.stats for name, place in self._places.items()}

    def arrange(self, observed: Collection[Observed]) -> None:
        """Takes places from models that are gone or idle, and gives them to the busiest of the others."""
        now = self._clock()
        if now - self._arranged_at < _PERIOD:
            return
        self._arranged_at = now
        requests: dict[str, int] = {}
        for one in observed:
            name = one.name
            requests[name] = requests.get(name, 0) + one.requests
        recent = self._recent(requests)
        self._seen = requests
        self._forget_gone(requests)
        self._end_idle(recent, now)
        self._give_to_busiest(recent, now)
        for one in observed:
            place = self._places.get(one.name)
            one.stats = self.other if place is None else place.stats

    def _recent(self, requests: Mapping[str, int]) -> dict[str, int]:
        """Requests since the last arrangement. One with fewer than it had is another of the same name."""
        recent = {}
        for name, count in requests.items():
            since = count - self._seen.get(name, 0)
            recent[name] = count if since < 0 else since
        return recent

    def _forget_gone(self, existing: Collection[str]) -> None:
        for name, place in list(self._places.items()):
            if name in existing:
                place.gone = False
            elif place.gone:
                del self._places[name]
            else:
                # Once more, since the last of its requests have been seen by nobody yet.
                place.gone = True
        self._resting = {name: stats for name, stats in self._resting.items() if name in existing}

    def _end_idle(self, recent: Mapping[str, int], now: float) -> None:
        for name, place in list(self._places.items()):
            if recent.get(name):
                place.asked_at = now
            elif now - place.asked_at >= _KEPT and not place.gone:
                self._take(name)

    def _give_to_busiest(self, recent: Mapping[str, int], now: float) -> None:
        others = (name for name, count in recent.items() if count and name not in self._places)
        busiest = nlargest(self._max_models, others, key=recent.__getitem__)
        free = self._max_models - len(self._places)
        for name in busiest[:free]:
            self._give(name, now)
        settled = [name for name, place in self._places.items() if now - place.since >= _KEPT and not place.gone]
        settled.sort(key=recent.__getitem__)
        for name, loser in zip(busiest[free:], settled, strict=False):
            if recent[name] < _HOTTER * max(1, recent[loser]):
                break
            self._take(loser)
            self._give(name, now)

    def _give(self, name: str, now: float) -> _Place:
        stats = self._resting.pop(name) if name in self._resting else ModelStats()
        place = _Place(stats, now, now)
        self._places[name] = place
        return place

    def _take(self, name: str) -> None:
        self._resting[name] = self._places.pop(name).stats
