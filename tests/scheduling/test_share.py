"""Whose batch runs next: fair in the long run, soon in the short one, and nobody in line is forgotten."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmserve.scheduling.share import QUANTUM, CpuShare

# What rounding may do to a time.
_ROUNDING = 1e-9


@dataclass(eq=False)
class Queue:
    """A model whose every batch takes so many quanta. `work` is what waits, in batches; by default without an end."""

    name: str = ""
    weight: float = 1.0
    quanta: float = 0.4
    idle: int = 1
    work: int = 1 << 30
    used: float = 0.0
    in_line: bool = False
    # What its batches took, and when each was there and for how long it waited; all in quanta.
    ran: float = 0.0
    asked: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class Host:
    """Gives batches to workers as the dispatcher does. Times are in quanta."""

    def __init__(self, slots: int, queues: list[Queue]) -> None:
        self.share: CpuShare[Queue, int] = CpuShare(slots)
        self.queues = queues
        self.now = 0.0
        self._numbers = itertools.count()
        self._running: list[tuple[float, int, Queue]] = []
        self._asking: list[tuple[float, int, Queue]] = []

    def ask(self, queue: Queue, at: float) -> None:
        heapq.heappush(self._asking, (at, next(self._numbers), queue))

    def run(self, until: float) -> None:
        for queue in self.queues:
            self._dispatch(queue)
        while True:
            due = self.share.due()
            times = [events[0][0] for events in (self._running, self._asking) if events]
            if due is not None:
                times.append(due / QUANTUM)
            now = min(times)
            if now > until:
                return
            self.now = max(now, self.now + _ROUNDING)
            if self._asking and self._asking[0][0] <= self.now:
                at, _, queue = heapq.heappop(self._asking)
                queue.work += 1
                queue.asked.append(at)
                self._dispatch(queue)
            elif self._running and self._running[0][0] <= self.now:
                self._end(*heapq.heappop(self._running))
            self._dispatch_line()

    def _end(self, _: float, worker: int, queue: Queue) -> None:
        queue.ran += queue.quanta
        queue.idle += 1
        self.share.ended(worker, queue, queue.quanta * QUANTUM)
        self._dispatch(queue)

    def _dispatch_line(self) -> None:
        while (queue := self.share.next(self.now * QUANTUM)) is not None:
            self._dispatch(queue, admitted=True)

    def _dispatch(self, queue: Queue, *, admitted: bool = False) -> None:
        while queue.idle and queue.work:
            if not admitted and not self.share.has_room(queue, self.now * QUANTUM):
                self.share.line_up(queue)
                return
            admitted = False
            worker = next(self._numbers)
            queue.idle -= 1
            queue.work -= 1
            if queue.asked:
                queue.waits.append(self.now - queue.asked[len(queue.waits)])
            self.share.started(worker, queue, self.now * QUANTUM)
            heapq.heappush(self._running, (self.now + queue.quanta, worker, queue))


def shares(slots: int, queues: list[Queue], quanta: float = 2000.0) -> list[float]:
    Host(slots, queues).run(quanta)
    return [queue.ran / (slots * quanta) for queue in queues]


def test_alone_a_model_may_have_it_all() -> None:
    assert shares(2, [Queue(idle=2)]) == pytest.approx([1.0], rel=0.01)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.5, 1.0, 4.5)])
def test_each_gets_its_part_by_weight(weights: tuple[float, ...]) -> None:
    found = shares(1, [Queue(weight=weight) for weight in weights])
    assert found == pytest.approx([weight / sum(weights) for weight in weights], rel=0.02)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_weights_hold_however_many_workers_a_model_has(slots: int) -> None:
    found = shares(slots, [Queue(weight=3.0, idle=2 * slots), Queue(idle=2 * slots)])
    assert found == pytest.approx([0.75, 0.25], rel=0.02)


def test_models_with_long_batches_and_many_workers_get_no_more_than_others() -> None:
    found = shares(2, [Queue(quanta=0.8, idle=4), Queue(quanta=0.1, idle=4)])
    assert found == pytest.approx([0.5, 0.5], rel=0.1)


def test_time_is_shared_and_not_batches() -> None:
    assert shares(1, [Queue(quanta=0.8), Queue(quanta=0.1)]) == pytest.approx([0.5, 0.5], rel=0.15)


def test_what_one_does_not_want_the_others_get() -> None:
    light, heavy = Queue(work=0, quanta=0.1), Queue()
    host = Host(1, [light, heavy])
    for number in range(1000):
        host.ask(light, number)
    host.run(1000.0)
    assert light.ran == pytest.approx(100.0, rel=0.01)
    assert heavy.ran == pytest.approx(900.0, rel=0.01)


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("quanta", [0.1, 0.9, 10.0, 1000.0])
def test_a_flood_delays_a_light_model_by_no_more_than_a_quantum(slots: int, quanta: float) -> None:
    light = Queue(work=0, quanta=0.1)
    host = Host(slots, [light, Queue(quanta=quanta, idle=8)])
    for number in range(500):
        host.ask(light, 5 + number * 3.7)
    host.run(2000.0)
    assert len(light.waits) == 500
    assert max(light.waits) <= 1.0 + 1e-6


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_many_floods_delay_a_light_model_by_no_more_than_one_batch_of_each(slots: int) -> None:
    light = Queue(work=0, quanta=0.1)
    floods = [Queue(quanta=0.2 * number, idle=4) for number in range(1, 11)]
    host = Host(slots, [light, *floods])
    for number in range(500):
        host.ask(light, 5 + number * 3.7)
    host.run(2000.0)
    assert len(light.waits) == 500
    assert max(light.waits) <= sum(min(flood.quanta, 1.0) for flood in floods) / slots + 1.0


def test_a_flood_of_one_model_leaves_the_others_their_turn() -> None:
    flood = Queue(idle=16, quanta=0.5)
    others = [Queue(work=0, quanta=0.1) for _ in range(50)]
    host = Host(4, [flood, *others])
    for number in range(5000):
        host.ask(others[number % 50], number * 0.2)
    host.run(1050.0)
    waits = [wait for other in others for wait in other.waits]
    assert len(waits) == 5000
    assert max(waits) <= 1.0 + 1e-6


def test_a_batch_that_runs_for_longer_than_a_quantum_makes_room() -> None:
    share: CpuShare[Queue, int] = CpuShare(1)
    long, other = Queue(), Queue()
    share.started(1, long, 0.0)
    assert not share.has_room(other, QUANTUM * 0.99)
    share.line_up(other)
    assert share.due() == QUANTUM
    assert share.next(QUANTUM * 0.99) is None
    assert share.next(QUANTUM) is other
    assert share.line == 0


def test_a_batch_that_hangs_holds_up_nobody() -> None:
    light = Queue(work=0, quanta=0.1)
    host = Host(1, [Queue(quanta=1e6), light])
    for number in range(100):
        host.ask(light, 10 + number * 5)
    host.run(600.0)
    assert len(light.waits) == 100
    assert max(light.waits) <= _ROUNDING * 10


def test_who_was_quiet_is_not_paid_back_for_that() -> None:
    early, late = Queue(), Queue(work=0)
    host = Host(1, [early, late])
    host.run(1000.0)
    late.work = 1 << 30
    host.run(2000.0)
    assert late.ran == pytest.approx(500.0, rel=0.02)


def test_who_wants_a_cpu_while_others_stand_in_line_goes_behind_those_that_have_used_less() -> None:
    share: CpuShare[Queue, int] = CpuShare(1)
    greedy, patient = Queue(), Queue()
    share.started(1, greedy, 0.0)
    share.line_up(patient)
    share.ended(1, greedy, QUANTUM / 2)
    assert not share.has_room(greedy, QUANTUM / 2)
    share.line_up(greedy)
    assert [share.next(QUANTUM / 2), share.next(QUANTUM / 2)] == [patient, greedy]


class Line(RuleBasedStateMachine):
    """Queues with work, batches that end at any time; a model of it says who runs and who stands in line."""

    @initialize(slots=st.integers(1, 4), weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=6))
    def begin(self, slots: int, weights: list[float]) -> None:
        self.now = 0.0
        self.slots = slots
        self.share: CpuShare[Queue, int] = CpuShare(slots)
        self.queues = [Queue(str(number), weight) for number, weight in enumerate(weights)]
        self.running: dict[int, tuple[Queue, float]] = {}
        self.in_line: list[Queue] = []
        self.workers = itertools.count()

    def counting(self) -> int:
        return sum(self.now - since < QUANTUM for _, since in self.running.values())

    def send(self, queue: Queue) -> None:
        assert self.counting() < self.slots
        worker = next(self.workers)
        self.share.started(worker, queue, self.now)
        self.running[worker] = queue, self.now

    @rule(number=st.integers(0, 5))
    def ask(self, number: int) -> None:
        queue = self.queues[number % len(self.queues)]
        if self.share.has_room(queue, self.now):
            assert queue not in self.in_line
            self.send(queue)
        else:
            assert self.in_line or self.counting() >= self.slots
            self.share.line_up(queue)
            if queue not in self.in_line:
                self.in_line.append(queue)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running)))
        queue, since = self.running.pop(worker)
        self.share.ended(worker, queue, self.now - since)
        self.let_in()

    @rule(quanta=st.sampled_from([0.25, 0.5, 1.5, 20.0]))
    def wait(self, quanta: float) -> None:
        self.now += quanta * QUANTUM
        self.let_in()

    def let_in(self) -> None:
        while (queue := self.share.next(self.now)) is not None:
            self.in_line.remove(queue)
            self.send(queue)
        assert not self.in_line or self.counting() >= self.slots, "somebody stands in line, and there is room"

    @invariant()
    def whoever_is_in_line_has_a_time_to_come_back_for(self) -> None:
        if self.in_line:
            due = self.share.due()
            assert due is not None
            assert due <= self.now + QUANTUM + _ROUNDING

    @invariant()
    def the_books_agree(self) -> None:
        assert self.share.line == len(self.in_line)
        assert [queue for queue in self.queues if queue.in_line] == [
            queue for queue in self.queues if queue in self.in_line
        ]

    def teardown(self) -> None:
        """Nobody is forgotten: as time goes on, all come out of the line, each once."""
        for _ in range(len(getattr(self, "in_line", [])) + 1):
            self.now += 2 * QUANTUM
            self.let_in()
        assert not self.in_line


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
