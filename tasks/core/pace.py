"""How fast something goes on, and when it will be done."""

import time

LEAST_SECONDS = 1.0
"""A rate over less time is chance."""


class Pace:
    """The rate since the first report. What was there before that, as in a resumed stage, cost no time."""

    def __init__(self) -> None:
        self._unit = ""
        self._begin = (0, 0.0)
        self._last = 0

    def of(self, done: int, total: int, unit: str) -> tuple[float | None, float | None]:
        """Take a report; return units per second and the seconds left, None as long as they are unknown."""
        now = time.monotonic()
        if unit != self._unit or done < self._last:  # another kind of work begins, as reading after fetching
            self._unit, self._begin = unit, (done, now)
        self._last = done
        first, started = self._begin
        if now - started < LEAST_SECONDS or done <= first:
            return None, None
        rate = (done - first) / (now - started)
        return rate, max(0, total - done) / rate
