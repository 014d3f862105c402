"""What a template has found out by answering, its workers share: in a process of its own, forked as workers are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import models_for_tests as models

# Says how much memory a fork takes for itself to load a model and answer; and the process's threads before.
_FORK = """
import gc, os, sys
import joblib, numpy, sklearn.linear_model
from mmserve_worker import handlers, process, warming
from mmserve_worker.calls import Call, ModelSpec
from mmserve_worker.handlers import rows, sklearn as _

def private_kilobytes():
    descriptor = os.open("/proc/self/smaps_rollup", os.O_RDONLY)
    lines = os.read(descriptor, 4096).splitlines()
    os.close(descriptor)
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"Private_Dirty"))

if sys.argv[2] == "warmed":
    warming.warm_up()
gc.disable()
gc.freeze()
threads = process.thread_count()
if os.fork() == 0:
    before = private_kilobytes()
    (reply,) = handlers.load(ModelSpec("model", sys.argv[1])).answer([Call(b"[[1.0]]")])
    taken = private_kilobytes() - before
    os.write(1, b"%d %d %b" % (taken, threads, reply.body))
    os._exit(0)
os.wait()
"""


def forked(directory: Path, how: str) -> tuple[int, int, str]:
    """Kilobytes taken, threads, and the answer."""
    run = subprocess.run(
        [sys.executable, "-c", _FORK, str(directory), how],
        env={**os.environ, "TMPDIR": str(directory), "OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not run.stderr
    taken, threads, answer = run.stdout.split(" ", 2)
    return int(taken), int(threads), answer


def test_a_worker_of_a_template_that_has_answered_takes_less_memory(tmp_path: Path) -> None:
    models.write_model(tmp_path, models.linear())
    held = sorted(tmp_path.iterdir())
    cold, _, first = forked(tmp_path, "cold")
    warmed, threads, second = forked(tmp_path, "warmed")
    assert first == second == '{"predictions": [3.0]}'
    # Measured as 0.75 to 0.8.
    assert warmed < 0.9 * cold
    assert threads == 1
    assert sorted(tmp_path.iterdir()) == held


def test_without_what_it_warms_up_with_there_is_nothing_to_do() -> None:
    code = "import sys; from mmserve_worker import warming; warming.warm_up(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is a data frame or a series to scikit-learn, twice warmed up or not at all; and what a prediction asks narwhals.
_FRAMES = """
import sys
import narwhals.stable.v2.dependencies as asked
import narwhals.dependencies
import numpy, pandas, sklearn.linear_model
from mmserve_worker import warming
from mmserve_worker.handlers import rows

class Kind(numpy.ndarray):
    pass

class Rows(list):
    pass

for _ in range(int(sys.argv[1])):
    warming.warm_up()
array = numpy.ones((1, 1))
values = [array, array.view(Kind), [[1.0]], Rows([[1.0]]), None, pandas.DataFrame(array), pandas.Series([1.0])]
print([(asked.is_into_dataframe(value), asked.is_into_series(value)) for value in values])
print(asked.is_into_dataframe(native_dataframe=values[5]), asked.is_into_series(native_series=array))
print(asked.is_into_dataframe.__name__, asked.is_into_dataframe.__doc__)
model = sklearn.linear_model.LinearRegression().fit(pandas.DataFrame({"a": [0.0, 1.0]}), [1.0, 3.0])
print(model.predict(pandas.DataFrame({"a": [0.5]})))
try:
    model.predict(pandas.DataFrame({"b": [0.5]}))
except ValueError as error:
    print(error)
asks = []
sys.setprofile(lambda frame, event, _: asks.append(1) if frame.f_code.co_name == "getattr_static" else None)
model.predict(array)
model.predict([[0.5]])
sys.setprofile(None)
print(len(asks) > 0, file=sys.stderr)
"""


def test_what_is_a_data_frame_stays_one_and_an_array_is_not_looked_at() -> None:
    def said(times: int) -> tuple[str, str]:
        command = [sys.executable, "-W", "ignore", "-c", _FRAMES, str(times)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return run.stdout, run.stderr

    plain, looked = said(0)
    assert looked == "True\n"
    for times in (1, 2):
        assert said(times) == (plain, "False\n")
