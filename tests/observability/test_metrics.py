"""What Prometheus is told is what was counted, in both of its formats, whoever has a place."""

from __future__ import annotations

import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmserve.observability.stats import SECONDS, SIZES
from tests.observability.observed import Host
from tests.observability.scraped import OPEN_METRICS, TEXT, Scraped, Series
from tests.observability.test_stats import Waiting

FORMATS = pytest.mark.parametrize("accept", [TEXT, OPEN_METRICS])


def scrape(host: Host, accept: str = TEXT) -> Scraped:
    return Scraped(*host.metrics.scrape(accept))


@FORMATS
def test_requests_and_batches_are_told_of_each_model(accept: str) -> None:
    host = Host(2)
    host.add("churn-acme", "b", "c", "d")
    queue = host.queues["churn-acme"]
    queue.answer(3, seconds=0.003)
    queue.answer(1, status=429, seconds=100.0)
    queue.stats.dispatched([Waiting(10.0), Waiting(10.5), Waiting(11.0)], 11.0)
    host.queues["c"].answer(2)
    host.queues["d"].answer(2)
    told = scrape(host, accept)

    model = {"model": "churn-acme"}
    assert told.value("mmserve_requests_total", **model, status=200) == 3
    assert told.value("mmserve_requests_total", **model, status=429) == 1
    assert told.value("mmserve_requests_total", model="(other)", status=200) == 4
    assert told.value("mmserve_request_seconds_bucket", **model, le=0.002) == 0
    assert told.value("mmserve_request_seconds_bucket", **model, le=0.005) == 3
    assert told.value("mmserve_request_seconds_bucket", **model, le=60.0) == 3
    assert told.value("mmserve_request_seconds_bucket", **model, le="+Inf") == 4
    assert told.value("mmserve_request_seconds_count", **model) == 4
    assert told.value("mmserve_request_seconds_sum", **model) == pytest.approx(100.009)
    assert told.value("mmserve_queue_wait_seconds_bucket", **model, le=0.001) == 1
    assert told.value("mmserve_queue_wait_seconds_bucket", **model, le=0.5) == 2
    assert told.value("mmserve_queue_wait_seconds_bucket", **model, le=1.0) == 3
    assert told.value("mmserve_queue_wait_seconds_sum", **model) == 1.5
    assert told.value("mmserve_batch_size_bucket", **model, le=2.0) == 0
    assert told.value("mmserve_batch_size_bucket", **model, le=4.0) == 1
    assert told.value("mmserve_batch_size_sum", **model) == 3


@FORMATS
def test_workers_are_told_of_each_model(accept: str) -> None:
    host = Host(2)
    host.add("churn-acme", "b", "c", "d")
    queue = host.queues["churn-acme"]
    queue.stats.worker_started("queue")
    queue.stats.worker_started("queue")
    queue.stats.worker_started("minimum")
    queue.stats.worker_stopped("idle")
    queue.stats.cold_start(0.25)
    queue.stats.evicted()
    queue.waiting, queue.memory, queue.workers = 4, 5000, {"READY": 1, "BUSY": 2}
    for name in "cd":
        other = host.queues[name]
        other.waiting, other.memory, other.workers = 1, 100, {"READY": 1}
    told = scrape(host, accept)

    model = {"model": "churn-acme"}
    assert told.value("mmserve_worker_starts_total", **model, reason="queue") == 2
    assert told.value("mmserve_worker_starts_total", **model, reason="minimum") == 1
    assert told.value("mmserve_worker_stops_total", **model, reason="idle") == 1
    assert told.value("mmserve_cold_starts_total", **model) == 1
    assert told.value("mmserve_cold_start_seconds_total", **model) == 0.25
    assert told.value("mmserve_evictions_total", **model) == 1
    assert told.value("mmserve_queue_depth", **model) == 4
    assert told.value("mmserve_queue_depth", model="(other)") == 2
    assert told.value("mmserve_memory_bytes", **model) == 5000
    assert told.value("mmserve_memory_bytes", model="(other)") == 200
    assert told.value("mmserve_workers", **model, state="BUSY") == 2
    assert told.value("mmserve_workers", model="(other)", state="READY") == 2
    assert told.value("mmserve_workers", model="b", state="BUSY") == 0


@FORMATS
def test_the_server_as_a_whole_is_told(accept: str) -> None:
    told = scrape(Host(1), accept)
    assert told.value("mmserve_models") == 3
    assert told.value("mmserve_memory_budget_bytes") == 1 << 30
    assert told.value("mmserve_memory_used_bytes") == 1 << 20
    assert told.value("mmserve_cpus") == 1.5
    assert (told.value("process_resident_memory_bytes") or 0) > 0


def test_both_formats_say_the_same() -> None:
    host = Host(1)
    host.add("a", "b")
    for queue in host.queues.values():
        queue.answer(3)
        queue.stats.worker_started("queue")
        queue.workers = {"READY": 1}
    text, newer = scrape(host, TEXT), scrape(host, OPEN_METRICS)
    assert text.growing() == newer.growing()
    ours = {name: kind for name, kind in text.types.items() if name.startswith("mmserve_")}
    assert ours == {name: kind for name, kind in newer.types.items() if name.startswith("mmserve_")}
    assert set(ours.values()) == {"counter", "gauge", "histogram"}


def test_a_format_that_is_not_asked_for_is_not_answered() -> None:
    host = Host(1)
    assert host.metrics.scrape("").content_type.startswith("text/plain; version=")
    assert host.metrics.scrape("text/html, */*").content_type.startswith("text/plain; version=")
    assert host.metrics.scrape(f"{OPEN_METRICS}, text/plain;q=0.5").content_type.startswith("application/openmetrics-t")


@FORMATS
def test_values_of_labels_may_hold_anything(accept: str) -> None:
    host = Host(1)
    name = 'a"b\\c\nd{e}=,'
    host.add(name)
    host.queues[name].answer()
    assert scrape(host, accept).value("mmserve_requests_total", model=name, status=200) == 1


def test_a_state_that_no_worker_is_in_any_more_is_told_as_0() -> None:
    host = Host(1)
    host.add("a")
    host.queues["a"].workers = {"BUSY": 2}
    assert scrape(host).value("mmserve_workers", model="a", state="BUSY") == 2
    host.queues["a"].workers = {"READY": 1}
    told = scrape(host)
    assert told.value("mmserve_workers", model="a", state="BUSY") == 0
    assert told.value("mmserve_workers", model="a", state="READY") == 1


def test_ten_thousand_models_make_no_more_series_than_there_are_places() -> None:
    host = Host(200)
    host.add(*(f"model-{number}" for number in range(10_000)))
    for queue in host.queues.values():
        queue.answer()
        queue.workers = {"READY": 1}
        queue.stats.worker_started("request")
        queue.stats.worker_stopped("idle")
    took = []
    for _ in range(3):
        host.now += 10
        started = time.perf_counter()
        answer = host.metrics.scrape(TEXT)
        took.append(time.perf_counter() - started)
    told = Scraped(*answer)
    assert len(told.models("mmserve_requests_total")) == 201
    assert told.value("mmserve_requests_total", model="(other)", status=200) == 9_800
    assert told.value("mmserve_workers", model="(other)", state="READY") == 9_800
    # Of each model: three histograms with a sum and a count, and less than 12 others.
    assert len(told.values) < 201 * (2 * (len(SECONDS) + 3) + len(SIZES) + 3 + 12) + 50
    # 20 to 35 ms were measured, and 200 with prometheus_client's own writer.
    assert min(took) < 0.1


NAMES = st.sampled_from("abcdef")


class ComingAndGoing(RuleBasedStateMachine):
    """Models come, are asked, rest, and go, while somebody scrapes."""

    @initialize(places=st.integers(0, 4))
    def start(self, places: int) -> None:
        self.host = Host(places)
        self.max_places = places
        self.before: dict[Series, float] = {}

    @rule(name=NAMES)
    def come(self, name: str) -> None:
        if name not in self.host.queues:
            self.host.add(name)

    @rule(name=NAMES)
    def go(self, name: str) -> None:
        self.host.queues.pop(name, None)
        # A model that comes again is another one, and its series another.
        self.before = {series: value for series, value in self.before.items() if ("model", name) not in series[1]}

    @rule(name=NAMES, count=st.integers(1, 40), status=st.sampled_from([200, 429]))
    def ask(self, name: str, count: int, status: int) -> None:
        if name in self.host.queues:
            self.host.queues[name].answer(count, status)

    @rule(seconds=st.sampled_from([0.1, 10.0, 60.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.host.now += seconds

    @rule()
    def scrape(self) -> None:
        told = scrape(self.host)
        now = told.growing()
        for series, value in now.items():
            assert value >= self.before.get(series, 0), series
        # What has lost its place is remembered: should it be seen again, it must not have fallen either.
        self.before |= now
        assert told.models("mmserve_queue_depth") - {"(other)"} == set(self.host.places.named())

    @invariant()
    def no_model_is_where_it_should_not_be(self) -> None:
        if hasattr(self, "host"):
            assert len(self.host.places.named()) <= self.max_places


TestComingAndGoing = ComingAndGoing.TestCase
TestComingAndGoing.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
