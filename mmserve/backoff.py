"""When what has failed is tried again: later each time, up to a bound."""

from __future__ import annotations

from dataclasses import dataclass

# More than it takes to any bound: a day of attempts would double a delay beyond what a float can hold.
_MOST_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds: the first delay, which doubles with each attempt, and the longest."""

    first: float
    longest: float

    def after(self, attempts: int) -> float:
        """Seconds until the next attempt when so many in a row have failed, of 1 and more."""
        return min(self.first * float(1 << min(attempts - 1, _MOST_DOUBLINGS)), self.longest)
