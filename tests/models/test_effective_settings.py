"""What holds for a model after all that was said of it, and where each of its settings comes from."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.models.model import Content, EffectiveSettings, Model
from mmserve.models.settings import ModelSettings
from mmserve.models.source import LocalSource
from tests.defaults import DEFAULTS
from tests.models.test_settings import consistent_settings

NOTHING = ModelSettings()


def model(
    scaled_to: ModelSettings = NOTHING,
    registered_with: ModelSettings = NOTHING,
    in_file: ModelSettings = NOTHING,
    *,
    has_code: bool = False,
) -> Model:
    content = Content(Path("model"), {}, in_file, has_code, (), "")
    return Model(
        "model", LocalSource(Path("model")), registered_with=registered_with, scaled_to=scaled_to, content=content
    )


def test_where_nobody_said_anything_the_servers_defaults_hold() -> None:
    for each in (model(), Model("model", LocalSource(Path("model")))):
        assert each.settings(DEFAULTS) == DEFAULTS
        assert each.sources(DEFAULTS) == dict.fromkeys(asdict(DEFAULTS), "server")


def test_the_nearest_wins() -> None:
    said = ModelSettings(job_queue_size=1), ModelSettings(job_queue_size=2), ModelSettings(job_queue_size=3)
    for near, source in enumerate(("scaling", "registration", "serving.properties")):
        each = model(*(NOTHING,) * near, *said[near:])
        assert each.settings(DEFAULTS).job_queue_size == near + 1
        assert each.sources(DEFAULTS)["job_queue_size"] == source


def test_what_is_said_in_other_units_holds_in_seconds_and_bytes() -> None:
    each = model(ModelSettings(max_batch_delay_ms=2.5), ModelSettings(max_memory_mb=64.5))
    settings, sources = each.settings(DEFAULTS), each.sources(DEFAULTS)
    assert (settings.max_batch_delay, sources["max_batch_delay"]) == (0.0025, "scaling")
    assert (settings.max_memory, sources["max_memory"]) == (67_633_152, "registration")


def test_a_limit_of_memory_is_never_rounded_to_none_at_all() -> None:
    assert model(ModelSettings(max_memory_mb=1e-300)).settings(DEFAULTS).max_memory == 1


def test_code_of_a_models_own_gets_no_batches_unless_somebody_asks_for_them() -> None:
    unasked = model(has_code=True)
    assert (unasked.settings(DEFAULTS).batch_size, unasked.sources(DEFAULTS)["batch_size"]) == (1, "model code")
    asked = model(in_file=ModelSettings(batch_size=8), has_code=True)
    assert (asked.settings(DEFAULTS).batch_size, asked.sources(DEFAULTS)["batch_size"]) == (8, "serving.properties")


@pytest.mark.parametrize(
    ("said", "defaults", "bounds", "sources"),
    [
        # Each: scaled to, registered with, in the file; the server's bounds; what holds; whose it is.
        (((4, None), (None, 2), (None, None)), (0, 8), (4, 4), ("scaling", "scaling")),
        (((None, 2), (None, None), (4, None)), (0, 8), (2, 2), ("scaling", "scaling")),
        (((None, None), (None, 1), (3, 5)), (0, 8), (1, 1), ("registration", "registration")),
        (((None, None), (3, None), (1, 5)), (0, 8), (3, 5), ("registration", "serving.properties")),
        (((6, None), (None, None), (1, 5)), (0, 2), (6, 6), ("scaling", "scaling")),
        (((None, None), (6, None), (None, None)), (0, 2), (6, 6), ("registration", "registration")),
        (((None, None), (None, None), (None, 2)), (4, 8), (2, 2), ("serving.properties", "serving.properties")),
        (((1, None), (None, None), (None, None)), (4, 8), (1, 8), ("scaling", "server")),
        (((None, None), (None, None), (None, None)), (4, 2), (4, 4), ("server", "server")),
    ],
)
def test_a_bound_gives_way_to_a_nearer_one_and_says_so(
    said: tuple[tuple[int | None, int | None], ...],
    defaults: tuple[int, int],
    bounds: tuple[int, int],
    sources: tuple[str, str],
) -> None:
    each = model(*(ModelSettings(least, most) for least, most in said))
    of_server = EffectiveSettings(*defaults, *[getattr(DEFAULTS, field.name) for field in fields(DEFAULTS)[2:]])
    settings, found = each.settings(of_server), each.sources(of_server)
    assert (settings.min_workers, settings.max_workers) == bounds
    assert (found["min_workers"], found["max_workers"]) == sources


@given(consistent_settings(), consistent_settings(), consistent_settings(), st.booleans())
def test_what_holds_is_what_its_source_says(
    scaled_to: ModelSettings, registered_with: ModelSettings, in_file: ModelSettings, has_code: bool
) -> None:
    said = {"scaling": scaled_to, "registration": registered_with, "serving.properties": in_file}
    settings = model(scaled_to, registered_with, in_file, has_code=has_code).settings(DEFAULTS)
    sources = model(scaled_to, registered_with, in_file, has_code=has_code).sources(DEFAULTS)
    assert 0 <= settings.min_workers <= settings.max_workers >= 1
    assert list(sources) == [field.name for field in fields(settings)]
    for name, source in sources.items():
        holds = getattr(settings, name)
        if source == "server":
            assert holds == getattr(DEFAULTS, name)
        elif source == "model code":
            assert (name, holds) == ("batch_size", 1)
        else:
            alone = model(in_file=said[source]).settings(DEFAULTS)
            both_bounds = (alone.min_workers, alone.max_workers)
            assert holds == getattr(alone, name) or ("workers" in name and holds in both_bounds)
