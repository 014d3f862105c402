"""Becomes another program: one that runs below the front's priority and dies with the front.

    python -m mmserve_worker.subordinate FRONT_PID NICE PROGRAM ARGUMENT...

A process of its own that does this to itself, since between a fork and an exec in the front, which has threads, no
Python may run.
"""

from __future__ import annotations

import os
import sys

from mmserve_worker import process

_OOM_SCORE = 800


def main() -> None:
    front, nice, *command = sys.argv[1:]
    process.die_with_parent(int(front))
    process.become_victim(int(nice), _OOM_SCORE)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
