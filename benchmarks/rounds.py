"""Measures our server and the reference by turns, so that a host's changing mood meets both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

ROUNDS = 5
# For each server in each round.
SECONDS = 3
# Of a throughput.
CONNECTIONS = 32

Measured = TypeVar("Measured")


class Progress(Protocol):
    """Where a benchmark says what it is doing, and its raw figures."""

    def doing(self, what: str) -> None: ...

    def say(self, what: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Rounds(Generic[Measured]):
    reference: list[Measured]
    ours: list[Measured]

    def median(self, compare: Callable[[Measured, Measured], float]) -> float:
        """Of what `compare` makes of ours and the reference of one round."""
        return statistics.median(map(compare, self.ours, self.reference))


def by_turns(progress: Progress, reference: Callable[[], Measured], ours: Callable[[], Measured]) -> Rounds[Measured]:
    rounds: Rounds[Measured] = Rounds([], [])
    for number in range(1, ROUNDS + 1):
        progress.doing(f"round {number} of {ROUNDS}: the reference")
        rounds.reference.append(reference())
        progress.doing(f"round {number} of {ROUNDS}: mmserve")
        rounds.ours.append(ours())
        progress.say(f"round {number}: reference {rounds.reference[-1]}; mmserve {rounds.ours[-1]}")
    return rounds
