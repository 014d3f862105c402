"""What must hold at every step of a simulation. Keeps books of its own, of what is done and not of what was meant.

Each violation is counted under the name of what does not hold, and the first of each is described.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Sequence

from benchmarks.simulation.books import KnownModel, KnownWorker, Waiting
from benchmarks.simulation.clock import Clock
from benchmarks.simulation.population import Profile
from mmserve.scheduling.share import QUANTUM
from mmserve.supervision.policy import TARGET_WAIT
from mmserve.supervision.room import PATIENCE

# Times are compared by what rounding may have done to them, in seconds.
_ROUNDING = 1e-6
# How much of the budget may be exceeded, beside what the largest model turns out to hold when it is loaded first; and
# for how many seconds by what is known.
_EXCESS, _EXCESS_SECONDS = 0.05, 1.5
# Seconds between two looks at those that nothing happens to.
_LOOK = 10.0
# A start of a simulated model takes up to so many times what its profile says.
_START_SPREAD = 1.5
# Ticks of the supervisor and the dispatcher that may be waited for, in seconds.
_TICKS = 1.1
# Seconds that a request may wait although a worker is idle: for a CPU, while everybody else has their turn.
_LINE = 0.25
# How much longer than with a CPU of its own a batch may be thought to take without asking.
_SERVICE_SPREAD = 1.2


class Checker:
    """`slots` batches may run at one time; bytes of `memory_budget`."""

    def __init__(
        self, clock: Clock, profiles: Sequence[Profile], *, cpus: float, slots: int, memory_budget: int
    ) -> None:
        self._clock = clock
        self._cpus = cpus
        self._slots = slots
        self._budget = memory_budget
        self._largest = max(profile.memory for profile in profiles)
        self._models = [KnownModel(profile) for profile in profiles]
        self._kept = [model for model in self._models if model.profile.settings.min_workers]
        for model in self._kept:
            model.short_since = clock.now
        self._workers: dict[int, KnownWorker] = {}
        # Batches that count, the oldest first, by worker.
        self._running: dict[int, float] = {}
        self._memory = 0
        self._known = 0
        self._too_much_since: float | None = None
        self._stretches = deque([1.0, 1.0], maxlen=60)
        self._next_look = _LOOK
        self.violations: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        # Of those that no other was before.
        self.waits = array("d")
        self.requests = 0
        self.hits = 0
        self.refused_requests: Counter[str] = Counter()
        self.highest_memory = 0
        self.slowest = 0.0
        self.useless_starts = 0

    # What is done.

    def arrived(self, profile: Profile, number: int) -> None:
        model = self._models[profile.index]
        now = self._clock.now
        self.requests += 1
        self.hits += model.ready > 0
        model.last_arrival = now
        model.waiting.append(Waiting(number, now, now + self._patience(model), not model.waiting))

    def refused(self, profile: Profile, why: str, *, waiting: bool = False) -> None:
        self.refused_requests[why] += 1
        if why != "full":
            self._wrong("refused", f"{profile.name}: a request is refused, and its queue was not full")
        if waiting:
            self._models[profile.index].waiting.popleft()

    def started(self, profile: Profile, worker: int, reason: str) -> None:
        model = self._models[profile.index]
        settings = profile.settings
        known = profile.memory if model.measured else 0
        self._workers[worker] = KnownWorker(model, known=known)
        model.serving += 1
        self._memory += profile.memory
        self._known += known
        if self._known > self._budget:
            self._wrong("budget", f"{profile.name}: a start that makes {self._known} bytes of {self._budget}")
        if model.serving > max(settings.max_workers, settings.min_workers):
            self._wrong("max", f"{profile.name} has {model.serving} workers")
        # Nobody loads a model without a request here, so a start for that reason needs one as well.
        if reason in ("request", "load", "queue"):
            if model.idle:
                self._wrong("see-saw", f"{profile.name}: a start for {reason} although a worker is idle")
            if not model.waiting:
                self._wrong("see-saw", f"{profile.name}: a start for {reason} although nothing waits")
            if model.last_idle_stop >= model.last_arrival:
                self._wrong("see-saw", f"{profile.name}: stopped as idle, and started without a new request")

    def came_up(self, worker: int) -> None:
        known = self._workers[worker]
        known.loaded = known.model.measured = True
        self._known += known.model.profile.memory - known.known
        known.known = known.model.profile.memory
        self._becomes_idle(known)
        known.model.ready += 1
        self._note_minimum(known.model)

    def sent(self, worker: int, numbers: list[int], *, counts: bool) -> None:
        known, now = self._workers[worker], self._clock.now
        model = known.model
        profile = model.profile
        if known.idle_since is None or known.stopped:
            self._wrong("in use", f"{profile.name}: a batch for a worker that is not idle")
        else:
            model.idle -= 1
        known.idle_since = None
        known.held += len(numbers)
        if len(numbers) > profile.settings.batch_size:
            self._wrong("batch size", f"{profile.name}: a batch of {len(numbers)}")
        for number in numbers:
            expected, arrived, due, first = model.waiting.popleft()
            if number != expected:
                self._wrong("order", f"{profile.name}: request {number} before {expected}")
            if first:
                self.waits.append(now - arrived)
            self.slowest = max(self.slowest, (now - arrived) / (due - arrived))
            if now > due:
                self._wrong("starvation", f"{profile.name}: waited {now - arrived:.3f} s, not {due - arrived:.3f}")
        if counts:
            self._check_slots(now)
            self._running[worker] = now

    def stretched(self, stretch: float) -> None:
        """A batch takes so many times as long as if a CPU were free."""
        self._stretches[-1] = max(self._stretches[-1], stretch)

    def answered(self, worker: int) -> None:
        known = self._workers[worker]
        self._running.pop(worker, None)
        if not known.stopped:
            self._becomes_idle(known)

    def given_back(self, profile: Profile, numbers: list[int]) -> None:
        """A worker has died of these, or with them: they come first again."""
        model, now = self._models[profile.index], self._clock.now
        model.waiting.extendleft(Waiting(number, now, now, False) for number in reversed(numbers))
        self._be_patient(model)

    def stopped(self, worker: int, reason: str) -> None:
        """A worker is told to end."""
        known, now = self._workers[worker], self._clock.now
        model = known.model
        profile, settings = model.profile, model.profile.settings
        if reason in ("idle", "evicted"):
            if known.idle_since is None or known.stopped:
                self._wrong("in use", f"{profile.name}: {reason}, and in use")
            if model.serving <= settings.min_workers:
                self._wrong("min", f"{profile.name}: {reason}, and one of {model.serving}")
            if model.waiting:
                self._wrong("see-saw", f"{profile.name}: {reason}, and {len(model.waiting)} wait for it")
        if reason == "evicted" and settings.pinned:
            self._wrong("pinned", f"{profile.name} is evicted")
        if reason == "idle" and known.idle_since is not None:
            model.last_idle_stop = now
            if now - known.idle_since < settings.max_idle_time - _ROUNDING:
                self._wrong("see-saw", f"{profile.name}: stopped after {now - known.idle_since:.3f} s of idleness")
        if not known.stopped:
            self._leaves(known)

    def ended(self, worker: int) -> None:
        known = self._workers.pop(worker)
        if not known.stopped:
            self._leaves(known)
            self._be_patient(known.model)
        self._running.pop(worker, None)
        self.useless_starts += not known.held
        self._memory -= known.model.profile.memory
        self._known -= known.known

    # At every step.

    def check(self, now: float) -> None:
        self.highest_memory = max(self.highest_memory, self._memory)
        if max(self._memory, self._known) > self._budget:
            self._check_memory(now)
        else:
            self._too_much_since = None
        if now >= self._next_look:
            self._next_look = now + _LOOK
            self._look(now)

    @property
    def highest_part(self) -> float:
        """Of the budget."""
        return self.highest_memory / self._budget

    def finish(self) -> None:
        """The simulation is over, and all should have been answered."""
        self._look(self._clock.now)
        left = sum(len(model.waiting) for model in self._models)
        if left:
            self._wrong("starvation", f"{left} requests wait when all is over")

    def _check_memory(self, now: float) -> None:
        if self._memory > self._budget * (1 + _EXCESS) + self._largest:
            self._wrong("budget", f"{self._memory} bytes of {self._budget}")
        if self._known <= self._budget:
            self._too_much_since = None
        elif self._too_much_since is None:
            self._too_much_since = now
        elif now - self._too_much_since > _EXCESS_SECONDS:
            self._wrong("budget", f"{self._known} bytes of {self._budget} since {now - self._too_much_since:.1f} s")

    def _check_slots(self, now: float) -> None:
        for worker, since in list(self._running.items()):
            if now - since < QUANTUM - _ROUNDING:
                break
            del self._running[worker]
        if len(self._running) >= self._slots:
            self._wrong("slots", f"{len(self._running) + 1} batches run")

    def _look(self, now: float) -> None:
        self._stretches.append(1.0)
        for model in self._models:
            if model.waiting and now > model.waiting[0].due:
                self._wrong("starvation", f"{model.profile.name}: a request waits since {model.waiting[0].arrived:.3f}")
        for model in self._kept:
            self._check_minimum(model)

    # How.

    def _becomes_idle(self, worker: KnownWorker) -> None:
        if not worker.stopped:
            worker.idle_since = self._clock.now
            worker.model.idle += 1

    def _leaves(self, worker: KnownWorker) -> None:
        """A worker is none of its model's any more."""
        worker.stopped = True
        model = worker.model
        model.serving -= 1
        model.ready -= worker.loaded
        model.idle -= worker.idle_since is not None
        self._note_minimum(model)

    def _note_minimum(self, model: KnownModel) -> None:
        if model.ready < model.profile.settings.min_workers:
            if model.short_since is None:
                model.short_since = self._clock.now
        elif model.short_since is not None:
            self._check_minimum(model)
            model.short_since = None

    def _check_minimum(self, model: KnownModel) -> None:
        if model.short_since is not None and self._clock.now - model.short_since > self._longest_start(model):
            self._wrong("min", f"{model.profile.name}: too few are ready since {model.short_since:.3f} s")

    def _longest_start(self, model: KnownModel) -> float:
        return PATIENCE + _TICKS + _START_SPREAD * model.profile.start

    def _patience(self, model: KnownModel) -> float:
        """For how long a request that comes now may wait for its worker."""
        if model.idle and not model.waiting:
            return _LINE
        profile = model.profile
        settings = profile.settings
        service = profile.service * _SERVICE_SPREAD * max(self._stretches)
        batches = math.ceil((len(model.waiting) + 1) / settings.batch_size)
        workers = min(settings.max_workers, max(1, math.floor(self._cpus / profile.cpu_share)), batches)
        # The batch that runs, and one until it is known that the handler only waits.
        return TARGET_WAIT + self._longest_start(model) + service * (2 + batches / workers)

    def _be_patient(self, model: KnownModel) -> None:
        """One of a model's workers has died: all that wait may have to wait for another."""
        if model.waiting:
            due = self._clock.now + self._patience(model)
            model.waiting = deque(each._replace(due=max(each.due, due)) for each in model.waiting)

    def _wrong(self, what: str, example: str) -> None:
        self.violations[what] += 1
        self.examples.setdefault(what, f"{self._clock.now:.3f} s: {example}")
