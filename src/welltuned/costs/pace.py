"""How fast a count grows, as of late: what begins slowly (compilation, first touches of memory) is soon forgotten."""

from collections import deque


class Pace:
    """The growth per second over the latter half of the time so far, and over `least_seconds` at the least."""

    def __init__(self, least_seconds: float) -> None:
        self._least_seconds = least_seconds
        self._known: deque[tuple[float, float]] = deque()  # time in seconds, and the count then
        self._began = 0.0

    def add(self, now: float, count: float) -> None:
        """Take notice of a count; the first one is where it begins."""
        if not self._known:
            self._began = now
        self._known.append((now, count))
        window = max(self._least_seconds, (now - self._began) / 2)
        while len(self._known) > 2 and now - self._known[1][0] >= window:
            self._known.popleft()

    @property
    def per_second(self) -> float:
        """Return the pace; 0 before two counts at different times are known."""
        if len(self._known) < 2:
            return 0.0
        (first, low), (last, high) = self._known[0], self._known[-1]
        return (high - low) / (last - first) if last > first else 0.0
