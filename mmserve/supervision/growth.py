"""Whether a worker grows and grows, by what it was seen to hold in one look after the other.

    a cache     grows while it is filled, and stays as it is then
    a leak      grows with what is answered, by much or by little, and never stops

Looks between which nothing was answered say nothing: neither grows then.
"""

from __future__ import annotations

MIB = 1024 * 1024
# A worker has grown that holds so many bytes more than when it had last grown; it leaks after so many times without a
# fall, when it has grown by as much as it held at first and by more than any cache would.
_RISE, _RISES = 256 * 1024, 5
_LEAKED = 64 * MIB
# One that has not grown for twice as many looks as it had grown for, and for so many at least, has filled its cache.
_QUIET = 60
# Answers after which what a worker holds may be what it has gathered, and not only what its model needs.
_FEW = 10


class Growth:
    """Of one worker. Bytes, and numbers of looks."""

    __slots__ = ("_answered", "_level", "_looks", "_reference", "_rises", "_rose", "first")

    def __init__(self) -> None:
        # What it held when it had loaded its model and answered hardly anything.
        self.first = 0
        self._answered = 0
        # What it held when it had first answered something, and what when it was last seen to have changed.
        self._reference: int | None = None
        self._level = 0
        self._rises = 0
        # Looks that count, and how many there had been when it was last seen to have grown.
        self._looks = 0
        self._rose = 0

    def seen(self, held: int, answered: int) -> None:
        """The worker holds so much after so many answers."""
        if answered <= _FEW:
            self.first = held
        if answered == self._answered:
            return
        self._answered = answered
        if self._reference is None:
            self._reference = self._level = held
            return
        self._looks += 1
        if held >= self._level + _RISE:
            self._rises += 1
            self._level, self._rose = held, self._looks
        elif held <= self._level - _RISE:
            self._level, self._rises = held, 0
        elif self._rises and self._looks - self._rose > max(2 * self._rose, _QUIET):
            # What it holds now is what it holds; from here on it may grow anew.
            self._reference = self._level = held
            self._rises = self._looks = self._rose = 0

    @property
    def is_leak(self) -> bool:
        if self._reference is None or self._rises < _RISES:
            return False
        return self._level - self._reference > max(_LEAKED, self._reference)
