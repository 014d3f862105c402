"""What the command trusts of its surroundings: no directory that others have a hand in, no file that lies about."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from mmserve import runfile
from tests.cli.command import ANY_PORT, Command
from tests.models_for_tests import write_model
from tests.servers import DEADLINE, LIGHT

_NOBODY = 65534


def symbolic_link(directory: Path) -> Path:
    target = directory.with_name("target")
    target.mkdir(mode=0o700)
    directory.symlink_to(target)
    return target


def others_may_write(directory: Path) -> Path:
    directory.mkdir()
    directory.chmod(0o770)
    return directory


def of_another_user(directory: Path) -> Path:
    """Only the superuser can make one; for others, one that anybody may write to, as of /tmp."""
    directory.mkdir()
    if os.getuid() == 0:
        directory.chmod(0o700)
        os.chown(directory, _NOBODY, _NOBODY)
    else:
        directory.chmod(0o1777)
    return directory


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no server, and that nobody may end."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("make", [symbolic_link, others_may_write, of_another_user])
def test_a_runtime_directory_of_others_is_not_believed(
    mmserve: Command, tmp_path: Path, victim: subprocess.Popen[bytes], make: Callable[[Path], Path]
) -> None:
    """It holds what somebody may have put there: a run file that is locked as a server's, and names another process."""
    directory = tmp_path / "run"
    content = make(directory)
    file = runfile.path(str(content), ANY_PORT)
    forged = runfile.Running(victim.pid, ANY_PORT, ANY_PORT, None, 0)
    with file.open("wb", buffering=0) as opened:
        opened.write(msgspec.json.encode(forged))
        fcntl.flock(opened, fcntl.LOCK_EX)
        for arguments in (["stop"], ["stop", "--force"], ["status"], ["start"], ["start", "--foreground"]):
            line = mmserve.fail(*arguments)
            assert line.startswith(f"Error: runtime_dir {directory}: is not a directory that is yours")
    assert victim.poll() is None
    assert list(content.iterdir()) == [file]
    assert file.read_bytes() == msgspec.json.encode(forged)
    assert not mmserve.processes()


def test_a_log_that_is_a_link_into_a_directory_of_others_is_not_written(mmserve: Command, tmp_path: Path) -> None:
    directory = others_may_write(tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    runfile.path(str(directory), ANY_PORT).with_suffix(".log").symlink_to(elsewhere)
    mmserve.fail("start")
    assert not elsewhere.exists()


def test_nothing_is_imported_from_the_directory_that_a_server_is_started_in(mmserve: Command, store: Path) -> None:
    """Neither by the server, nor by the template or its workers."""
    write_model(store / "coded", files={"model.py": "def handle(inputs): pass\n"})
    imported = mmserve.directory / "imported"
    for name in ("psutil", "uvloop", "aiohttp", "numpy", "joblib"):
        (mmserve.directory / f"{name}.py").write_text(f"open({str(imported)!r}, 'w').write(__name__)\n")
    mmserve.succeed("start", f"--model-store={store}", f"--preload={LIGHT}")
    running = runfile.read(runfile.path(str(mmserve.directory / "run"), ANY_PORT))
    assert running is not None
    url = f"{running.inference}/predictions/coded"
    assert httpx.post(url, timeout=DEADLINE, trust_env=False).status_code == 204
    assert not imported.exists()
    assert mmserve.succeed("stop") == "stopped\n"


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_systemd_is_told_when_the_server_answers(mmserve: Command, *, is_abstract: bool) -> None:
    address = f"@mmserve-{uuid.uuid4().hex}" if is_abstract else str(mmserve.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(DEADLINE)
        process = mmserve.popen("start", "--foreground", f"--preload={LIGHT}", NOTIFY_SOCKET=address)
        assert manager.recv(1000) == b"READY=1"
        running = runfile.read(runfile.path(str(mmserve.directory / "run"), ANY_PORT))
        assert running is not None
        assert running.pid == process.pid
        assert httpx.get(f"{running.inference}/ping", trust_env=False).status_code == 200
        process.terminate()
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
