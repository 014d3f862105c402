"""Servers that do not trust every model, and what every model gets to see of its server."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import skops.io

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

ENVIRONMENT = """
import os
from djl_python import Output

def handle(inputs):
    return Output().add_as_json(dict(os.environ))
"""
SECRETS = {
    "AWS_ACCESS_KEY_ID": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "secret",
    "AWS_PROFILE": "secret",
    "AWS_SHARED_CREDENTIALS_FILE": "/secret",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/secret",
    "AWS_ROLE_ARN": "secret",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/secret",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost/secret",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://localhost/secret",
    "GITHUB_TOKEN": "secret",
    "SERVICE_API_KEY": "secret",
    "DATABASE_PASSWORD": "secret",
    "DATABASE_URL": "postgres://user:secret@localhost/",
    "UV_INDEX_URL": "https://user:secret@localhost/",
}


def test_under_skops_only_nothing_is_loaded_that_may_run_code(serve: Callable[..., Server], store: Path) -> None:
    (store / "safe").mkdir()
    skops.io.dump(models.linear(), store / "safe" / "model.skops")
    models.write_archive(store / "pickled.tar.gz", models.linear())
    models.write_model(store / "coded", None, {"model.py": ENVIRONMENT})
    elsewhere = models.write_archive(store.parent / "elsewhere.tar.gz", models.linear())
    server = serve(model_store=store, trust="skops-only")
    assert server.predictions("safe", [[1.0]]) == [3.0]
    for model, file in (("pickled", "model.joblib"), ("coded", "model.py")):
        answer = server.predict(model, [[1.0]])
        assert (answer.status_code, answer.json()["type"]) == (424, "UntrustedModel")
        assert f"trust is skops-only, and {file} is refused" in answer.json()["message"]
    registered = server.management.post("/models", params={"url": str(elsewhere)})
    assert (registered.status_code, registered.json()["type"]) == (424, "UntrustedModel")


def test_under_a_list_of_digests_what_is_added_to_it_is_served(serve: Callable[..., Server], store: Path) -> None:
    archive = models.write_archive(store / "m.tar.gz", None, {"model.py": ENVIRONMENT})
    file = store.parent / "trusted"
    file.write_text("# none yet\n")
    server = serve(model_store=store, trust=f"sha256:{file}", preload=LIGHT)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    answer = server.predict("m", [])
    assert (answer.status_code, answer.json()["type"]) == (424, "UntrustedModel")
    assert digest in answer.json()["message"]
    file.write_text(f"{digest}  m.tar.gz\n")
    # It is tried again after a second.
    wait_until(lambda: server.predict("m", []).status_code == 200, "a model that is trusted by now")


def test_a_model_sees_no_secret_of_the_server(store: Path, tmp_path: Path) -> None:
    models.write_model(store / "m", None, {"model.py": ENVIRONMENT})
    environment = {**SECRETS, "MODELS_OWN": "seen"}
    server = Server(tmp_path, environment, model_store=store, preload=LIGHT, worker_environment="MODELS_OWN")
    try:
        seen = server.predict("m", []).json()
    finally:
        server.end()
    assert seen["MODELS_OWN"] == "seen"
    assert not set(SECRETS) & set(seen)
    assert "secret" not in str(seen)


def test_the_server_cannot_be_looked_into_by_its_user() -> None:
    """Its environment and memory, by a process of the same user that is not root."""
    code = """
import ctypes, os
from mmserve.supervision.spawning import hide_from_workers
if os.getuid() == 0:
    os.setuid(65534)
    # A change of the user hides a process as well.
    ctypes.CDLL(None).prctl(4, 1)
def looks_in(file):
    child = os.fork()
    if child == 0:
        try:
            os.close(os.open(f"/proc/{os.getppid()}/{file}", os.O_RDONLY))
        except PermissionError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(looks_in("environ"), looks_in("mem"))
hide_from_workers()
print(looks_in("environ"), looks_in("mem"))
open("/proc/self/smaps_rollup").read(), os.listdir("/proc/self/fd")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "False", "False"], done.stderr
