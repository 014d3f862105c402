"""What a model's code forks in its worker can be ended from its first moment on."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own, which takes no notice of SIGTERM afterwards, as a worker does not.
_FORK = """
import os, signal, sys, time
from mmserve_worker import worker

worker._ignore_stopping()
os.kill(os.getpid(), signal.SIGTERM)
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def test_a_fork_is_ended_by_sigterm_however_early_it_comes() -> None:
    assert subprocess.run([sys.executable, "-c", _FORK], check=False).returncode == 0
