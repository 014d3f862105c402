"""The template: a process that has imported the libraries once, serves nothing, and forks workers on request.

    front ──(control socket)──► template ──fork──► worker
                                    └──fork──► next template: imports what was learned, then takes over

It is single-threaded and stays so, since only then is a fork safe: a template that had ever run an OpenMP `predict`
made its children hang for ever. It imports, asks one model of its own that starts no thread (warming.py), and runs no
other code. What workers had to import to load their models is learned: the front asks for a next template with those
modules, which is a fork of this one, so that imports never hold up a worker's start, and one that turns out to start
threads, or to crash, is simply not taken.

multiprocessing's forkserver is this idea too, but its children are its own and not the front's (see
`process.fork_sibling`), it hands them a resource tracker and a semaphore, and its preload list is fixed at its start.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import logging
import os
import signal
import socket
from collections.abc import Iterable

from mmserve_worker import control, process, warming, worker
from mmserve_worker.channel import ChannelFiles

logger = logging.getLogger("mmserve.template")

# Our own code that a worker needs for its first request, imported after the libraries it uses.
_OWN_MODULES = (
    "mmserve_worker.handlers.rows",
    "mmserve_worker.handlers.sklearn",
    "mmserve_worker.handlers.djl",
    # 17 ms of a cold start, were it the worker that imports them.
    "mmserve_worker.handlers.sagemaker",
    "mmserve_worker.handlers.mms",
    "mmserve_worker.codecs",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="mmserve_worker.template")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket to the front")
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--preload", nargs="*", default=[], help="modules to import before the first fork")
    # Never read: it only keeps room for the names of models in the process title.
    parser.add_argument("--title-room")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")
    # What ends a worker that crashes or hangs is written to the log. Workers inherit this.
    faulthandler.enable()
    front = os.getppid()
    process.die_with_parent(front)
    # Ctrl-C in a terminal and systemd's stop reach every process; only the front decides what ends, and when.
    # Workers inherit this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Template(socket.socket(fileno=arguments.control), front).serve(arguments.preload)


class Template:
    """The process's whole life: import, say so, fork until the front closes the socket."""

    def __init__(self, control_socket: socket.socket, front: int) -> None:
        self._control = control_socket
        self._front = front

    def serve(self, preload: Iterable[str]) -> None:
        process.set_title("mmserve: template")
        control.send(self._control, {"pid": os.getpid()})
        gc.disable()
        if not self._import([*preload, *_OWN_MODULES]):
            return
        warming.warm_up()
        # What is frozen is never visited by a collector, so that a child's collections do not copy the pages. Nothing
        # is collected before: the holes that this would leave are filled by the children, each with its own copy.
        gc.freeze()
        control.send(self._control, {"ready": True})
        while (received := control.receive(self._control)) is not None:
            message, descriptors = received
            if "fork" in message:
                self._fork_worker(message, descriptors)
            else:
                self._fork_template(message, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _import(self, modules: Iterable[str]) -> bool:
        """Imports the modules; says False, and tells the front which one, when this process is then no template."""
        for module in modules:
            control.send(self._control, {"importing": module})
            try:
                importlib.import_module(module)
            except Exception as error:  # whatever a library raises: the next worker that needs it says what is wrong
                logger.warning("not preloaded: %s (%s: %s)", module, type(error).__name__, error)
            if process.thread_count() > 1:
                control.send(self._control, {"unfit": module})
                return False
        return True

    def _fork_worker(self, message: control.Message, descriptors: list[int]) -> None:
        try:
            pid = process.fork_sibling()
        except OSError as error:
            control.send(self._control, {"failed": message["fork"], "error": str(error)})
            return
        if pid == 0:
            # By the worker as well as below: whichever of the two lives long enough has told the front, and as long as
            # neither has, one of them holds the socket open.
            try:
                control.send(self._control, {"forked": message["fork"], "pid": os.getpid()})
                worker.main(ChannelFiles(*descriptors), self._front, message["nice"])
            finally:
                # The front has gone. Whatever happens in a fork, it must not come back up through this stack.
                os._exit(1)
        control.send(self._control, {"forked": message["fork"], "pid": pid})

    def _fork_template(self, message: control.Message, descriptors: list[int]) -> None:
        (descriptor,) = descriptors
        try:
            pid = process.fork_sibling()
        except OSError as error:
            logger.warning("no new template: %s", error)
            return
        if pid == 0:
            try:
                process.die_with_parent(self._front)
                process.close_all_but([descriptor])
                Template(socket.socket(fileno=descriptor), self._front).serve(message["renew"])
            except OSError as error:
                logger.warning("the template ends: %s", error)
            finally:
                os._exit(0)


if __name__ == "__main__":
    main()
