"""Environments from a package index: the only tests here that need one."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.http.errors import assert_error
from tests.servers import LIGHT, Server
from tests.supervision.coded import ask
from tests.supervision.environments import write_needy

# Neither is the server's own, and there are wheels of both for every Python that it runs on.
VERSIONS = ("1.5.2", "1.6.1")


def downloads() -> dict[str, str]:
    """Where uv keeps what it has downloaded for this user, so that it is downloaded once for many runs."""
    return {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))}


def test_two_models_that_need_two_versions_of_scikit_learn_serve_side_by_side(
    serve: Callable[..., Server], store: Path, threads: ThreadPoolExecutor
) -> None:
    for version in VERSIONS:
        directory = write_needy(store / f"needs-{version}", f"scikit-learn=={version}", module="sklearn", has=())
        code = (directory / "model.py").read_text()
        fitted = (
            "from sklearn.linear_model import LinearRegression\n"
            "model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])\n"
        )
        answer = "round(float(model.predict([[float(inputs.get_as_string())]])[0]), 6)"
        (directory / "model.py").write_text(f"{fitted}{code.replace('sys.prefix', answer)}")
    server = serve(model_store=store, preload=LIGHT, environment=downloads())
    asked = [threads.submit(ask, server, f"needs-{version}", "4") for version in VERSIONS]
    assert [one.result().json() for one in asked] == [[9.0, version] for version in VERSIONS]
    ready = [server.describe(f"needs-{version}")["status"] for version in VERSIONS]
    assert ready == ["READY", "READY"]


def test_versions_without_a_wheel_for_this_python_are_named_with_what_to_do(
    serve: Callable[..., Server], store: Path
) -> None:
    """As an old archive of SageMaker's asks for them."""
    write_needy(store / "old", "numpy==1.22.3\nscikit-learn==0.23.2\n", module="sklearn", has=())
    server = serve(model_store=store, preload=LIGHT, environment=downloads())
    assert_error(
        ask(server, "old"), 424, "EnvironmentFailedException", "1.22.3", "loosen the pins", "environments=ignore"
    )
