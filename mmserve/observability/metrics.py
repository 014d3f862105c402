"""What Prometheus is told: of the busiest models each, of all others together, and of the server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mmserve.observability.exposition import Exposition, Labels
from mmserve.observability.places import Observed, Places
from mmserve.observability.stats import SECONDS, SIZES, ModelStats

# No model can be named so.
OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Figures:
    """The server as a whole: models that can be asked, bytes that workers may and do hold, CPUs that may be used."""

    models: int
    memory_budget: int
    memory_used: int
    cpus: float


class Scrape(NamedTuple):
    content_type: str
    body: bytes


class Metrics:
    """`observed` are all models' queues. For the event loop's thread alone."""

    def __init__(
        self, places: Places, observed: Callable[[], Iterable[Observed]], figures: Callable[[], Figures]
    ) -> None:
        self._places = places
        self._observed = observed
        # Every state that a worker was ever seen in: a count that falls to nothing is 0, and does not just go away.
        self._states: set[str] = set()
        # Not the global one, so that it says nothing that we do not know of.
        self._registry = CollectorRegistry()
        self._registry.register(_FiguresCollector(figures))
        ProcessCollector(registry=self._registry)

    def scrape(self, accept: str) -> Scrape:
        """The answer to whoever accepts this. 20 to 35 ms with 10,000 queues and 200 places,
        beside what these queues need to say how they are."""
        encode, content_type = choose_encoder(accept)
        observed = list(self._observed())
        self._places.arrange(observed)
        named = {**self._places.named(), OTHER: self._places.other}
        text = Exposition(open_metrics=content_type.startswith("application/openmetrics-text"))
        _write_requests(text, named)
        _write_starts(text, named)
        self._write_present(text, named, observed)
        # Last, since it ends with the mark of the end where there is one.
        return Scrape(content_type, text.text() + encode(self._registry))

    def _write_present(self, text: Exposition, named: Collection[str], observed: Iterable[Observed]) -> None:
        """What there is at this moment."""
        waiting = dict.fromkeys(named, 0)
        memory = dict.fromkeys(named, 0)
        workers: dict[str, dict[str, int]] = {name: {} for name in named}
        for one in observed:
            name = one.name if one.name in waiting else OTHER
            waiting[name] += one.waiting
            # Most models are asleep.
            if has := one.workers:
                memory[name] += one.memory
                by_state = workers[name]
                for state, count in has.items():
                    by_state[state] = by_state.get(state, 0) + count
        self._states.update(*workers.values())
        states = sorted(self._states)
        text.gauge("mmserve_queue_depth", "Requests that wait.", _by_model(waiting))
        text.gauge("mmserve_memory_bytes", "Bytes that workers hold.", _by_model(memory))
        text.gauge(
            "mmserve_workers",
            "Workers that there are, by what they do.",
            _by_model_and(
                "state",
                {name: {state: by_state.get(state, 0) for state in states} for name, by_state in workers.items()},
            ),
        )


def _write_requests(text: Exposition, named: Mapping[str, ModelStats]) -> None:
    text.counter(
        "mmserve_requests",
        "Requests that were answered.",
        _by_model_and("status", {name: stats.requests for name, stats in named.items()}),
    )
    text.histogram(
        "mmserve_request_seconds",
        "Seconds from the arrival of a request to its answer.",
        SECONDS,
        [(_model(name), stats.latencies, stats.latency_seconds) for name, stats in named.items()],
    )
    text.histogram(
        "mmserve_queue_wait_seconds",
        "Seconds that a request waited for a worker.",
        SECONDS,
        [(_model(name), stats.waits, stats.wait_seconds) for name, stats in named.items()],
    )
    text.histogram(
        "mmserve_batch_size",
        "Requests that a worker took at once.",
        SIZES,
        # Every wait is that of one request in one batch.
        [(_model(name), stats.sizes, sum(stats.waits)) for name, stats in named.items()],
    )


def _write_starts(text: Exposition, named: Mapping[str, ModelStats]) -> None:
    text.counter(
        "mmserve_worker_starts",
        "Workers that were started, by why.",
        _by_model_and("reason", {name: stats.starts for name, stats in named.items()}),
    )
    text.counter(
        "mmserve_worker_stops",
        "Workers that have ended, by why.",
        _by_model_and("reason", {name: stats.stops for name, stats in named.items()}),
    )
    text.counter(
        "mmserve_cold_starts",
        "Times that a sleeping model was woken by a request.",
        _by_model({name: stats.cold_starts for name, stats in named.items()}),
    )
    text.counter(
        "mmserve_cold_start_seconds",
        "Seconds that these took, all together.",
        _by_model({name: stats.cold_start_seconds for name, stats in named.items()}),
    )
    text.counter(
        "mmserve_evictions",
        "Workers that were stopped to make room in memory.",
        _by_model({name: stats.evictions for name, stats in named.items()}),
    )


def _model(name: str) -> Labels:
    return (("model", name),)


def _by_model(values: Mapping[str, float]) -> dict[Labels, float]:
    return {_model(name): value for name, value in values.items()}


def _by_model_and(label: str, values: Mapping[str, Mapping[Any, float]]) -> dict[Labels, float]:
    """One series for each key of each model's values."""
    return {
        (("model", name), (label, str(key))): value for name, by_key in values.items() for key, value in by_key.items()
    }


class _FiguresCollector(Collector):
    """The figures of the server, as they are when it is asked."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._figures()
        for name, meaning, value in (
            ("mmserve_models", "Models that were asked something since the start.", figures.models),
            (
                "mmserve_memory_budget_bytes",
                "Bytes that the server and all its workers may hold.",
                figures.memory_budget,
            ),
            ("mmserve_memory_used_bytes", "Bytes that the server and all its workers hold.", figures.memory_used),
            ("mmserve_cpus", "CPUs that may be used.", figures.cpus),
        ):
            yield GaugeMetricFamily(name, meaning, value)
