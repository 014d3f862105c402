"""The busiest models have series of their own, no more than there are places, and no count is ever lost or moved."""

from __future__ import annotations

from tests.observability.observed import Host, Queue


def own(host: Host) -> set[str]:
    """The models with a place, after a look at whether they are counted there and nobody else is."""
    named = host.places.named()
    for name, queue in host.queues.items():
        assert queue.stats is named.get(name, host.places.other)
    return set(named)


def test_models_get_places_in_the_order_in_which_they_come() -> None:
    host = Host(2)
    host.add("a", "b", "c")
    assert own(host) == {"a", "b"}


def test_without_places_all_are_counted_together() -> None:
    host = Host(0)
    host.add("a", "b")
    host.queues["a"].answer(5)
    host.arrange()
    assert own(host) == set()
    assert host.places.other.requests == {200: 5}


def test_an_idle_model_gives_its_place_to_the_busiest_without_one() -> None:
    host = Host(2)
    host.add("idle", "asked", "busy", "busier")
    for _ in range(30):
        for name, count in (("asked", 1), ("busy", 3), ("busier", 5)):
            host.queues[name].answer(count)
        host.arrange()
    assert own(host) == {"asked", "busier"}
    assert host.places.other.requests == {200: 30 * 3 + 30 * 5}


def test_a_model_keeps_its_place_for_minutes_without_a_request() -> None:
    host = Host(1)
    host.add("a", "b")
    host.queues["a"].answer()
    for _ in range(30):
        host.queues["b"].answer()
        host.arrange()
    assert own(host) == {"a"}
    host.queues["b"].answer()
    host.arrange()
    assert own(host) == {"b"}


def test_a_hot_model_is_seen_although_all_places_are_taken_by_models_in_use() -> None:
    host = Host(2)
    host.add("slow", "slower", "hot", "warm")
    for _ in range(40):
        for name, count in (("slow", 2), ("slower", 1), ("hot", 50), ("warm", 9)):
            host.queues[name].answer(count)
        host.arrange()
    assert own(host) == {"slow", "hot"}


def test_models_that_are_as_busy_as_each_other_do_not_change_places() -> None:
    host = Host(2)
    host.add("a", "b", "c", "d")
    for turn in range(200):
        for number, queue in enumerate(host.queues.values()):
            queue.answer(1 + (turn + number) % 4)
        host.arrange()
        assert own(host) == {"a", "b"}


def test_a_new_hot_model_does_not_take_the_place_of_one_that_has_just_got_it() -> None:
    host = Host(1)
    host.add("first", "second")
    host.queues["first"].answer()
    host.queues["second"].answer(1000)
    host.arrange()
    assert own(host) == {"first"}


def test_a_model_that_comes_back_to_a_place_goes_on_where_it_was() -> None:
    host = Host(1)
    host.add("a", "b")
    host.queues["a"].answer(7)
    host.arrange()
    host.queues["b"].answer(5)
    host.arrange(after=301)
    assert own(host) == {"b"}
    host.queues["a"].answer(3)
    host.arrange(after=301)
    assert own(host) == {"a"}
    host.queues["a"].answer(2)
    assert host.places.named()["a"].requests == {200: 9}
    assert host.places.other.requests == {200: 8}


def test_the_place_of_a_model_that_is_gone_is_free_once_its_last_requests_were_seen() -> None:
    host = Host(1)
    host.add("gone", "waiting")
    host.queues.pop("gone").answer(3)
    host.queues["waiting"].answer()
    host.arrange()
    assert host.places.named()["gone"].requests == {200: 3}
    host.queues["waiting"].answer()
    host.arrange()
    assert own(host) == {"waiting"}


def test_a_model_that_is_gone_is_no_obstacle_to_others_that_want_a_place() -> None:
    host = Host(2)
    host.add("gone", "slow", "hot", "hotter")
    host.arrange()
    del host.queues["gone"]
    for name, count in (("slow", 1), ("hot", 50), ("hotter", 60)):
        host.queues[name].answer(count)
    host.arrange(after=301)
    assert set(host.places.named()) == {"gone", "hotter"}
    host.queues["hot"].answer()
    host.arrange()
    assert own(host) == {"hotter", "hot"}


def test_a_model_that_is_registered_anew_is_as_busy_as_it_is_now() -> None:
    host = Host(1)
    host.add("idle", "again", "other")
    host.queues["again"].answer(1000)
    host.arrange()
    host.add("again")
    host.queues["again"].answer(50)
    host.queues["other"].answer(5)
    host.arrange(after=301)
    assert own(host) == {"again"}


def test_a_model_that_is_registered_anew_goes_on_in_its_place() -> None:
    host = Host(1)
    host.add("a")
    host.queues["a"].answer(3)
    host.arrange()
    host.add("a")
    host.queues["a"].answer(1)
    host.arrange()
    assert own(host) == {"a"}
    assert host.places.named()["a"].requests == {200: 4}


def test_two_queues_of_one_name_are_counted_as_one_model() -> None:
    host = Host(1)
    host.add("a")
    draining = host.queues["a"]
    host.add("a")
    host.places.arrange([draining, host.queues["a"]])
    draining.answer(2)
    host.queues["a"].answer(3)
    assert host.places.named()["a"].requests == {200: 5}
    assert draining.stats is host.queues["a"].stats


def test_looking_often_is_not_taken_for_models_being_idle() -> None:
    host = Host(1)
    host.add("a", "b")
    host.now += 400
    host.queues["a"].answer()
    host.places.arrange(host.queues.values())
    host.queues["b"].answer(100)
    for _ in range(5):
        host.places.arrange(host.queues.values())
        assert own(host) == {"a"}


def test_a_queue_that_is_counted_where_nobody_looks_is_mended() -> None:
    host = Host(0)
    host.queues["a"] = Queue("a", Host(1).places.stats_of("a"))
    host.arrange()
    assert host.queues["a"].stats is host.places.other
