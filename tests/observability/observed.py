"""Queues as metrics look at them, without any requests or workers behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmserve.observability.metrics import Figures, Metrics
from mmserve.observability.places import Places
from mmserve.observability.stats import ModelStats


@dataclass
class Queue:
    name: str
    stats: ModelStats
    requests: int = 0
    waiting: int = 0
    workers: Mapping[str, int] = field(default_factory=dict)
    memory: int = 0

    def answer(self, count: int = 1, status: int = 200, seconds: float = 0.003) -> None:
        """As a server counts requests that come and are answered."""
        self.requests += count
        for _ in range(count):
            self.stats.answered(status, seconds)


class Host:
    """Some models, the metrics of them, and a clock that goes when it is told to."""

    def __init__(self, max_models: int) -> None:
        self.now = 1000.0
        self.places = Places(max_models, clock=lambda: self.now)
        self.queues: dict[str, Queue] = {}
        self.figures = Figures(models=3, memory_budget=1 << 30, memory_used=1 << 20, cpus=1.5)
        self.metrics = Metrics(self.places, self.queues.values, lambda: self.figures)

    def add(self, *names: str) -> None:
        for name in names:
            self.queues[name] = Queue(name, self.places.stats_of(name))

    def arrange(self, after: float = 10.0) -> None:
        """Lets so many seconds pass, and everything be looked at."""
        self.now += after
        self.places.arrange(self.queues.values())
