"""Who computes on the page, so that each visitor can stop what is his and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Stopped(Exception):
    """A visitor pressed *Stop*, or left."""


class Run:
    """One computation of a visitor, which asks at each step whether it shall go on.

    Attributes:
        at (`str`): Where it is, in words.

    Example:
        >>> run = Run()
        >>> run.go_on("pass 3")
        >>> run.stop()
        >>> run.go_on("pass 4")
        Traceback (most recent call last):
        hf_pmgaft.demo.visitors.Stopped: Stopped at pass 3.
    """

    def __init__(self) -> None:
        self.at = "the beginning"
        self._is_stopped = threading.Event()
        self._has_ended = threading.Event()

    def go_on(self, at: str) -> None:
        """Says where it is.

        Raises:
            Stopped: if the visitor wants no more.
        """
        if self._is_stopped.is_set():
            raise Stopped(f"Stopped at {self.at}.")
        self.at = at

    def stop(self) -> None:
        """Lets it go no step further."""
        self._is_stopped.set()

    def end(self) -> None:
        """Says that nothing is computed any more."""
        self._has_ended.set()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        return self._has_ended.wait(seconds)


class Visitors:
    """What each visitor computes, by the name of his session.

    Example:
        >>> visitors = Visitors()
        >>> with visitors.run("first") as run:
        ...     visitors.stop("second") is None  # who has nothing to stop
        True
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def run(self, session: str) -> Iterator[Run]:
        """Registers a computation until it ends."""
        run = Run()
        with self._lock:
            self._runs[session] = run
        try:
            yield run
        finally:
            run.end()
            with self._lock:
                if self._runs.get(session) is run:
                    del self._runs[session]

    def stop(self, session: str) -> Run | None:
        """Stops what a visitor computes, and says what that is; `None` if there is nothing."""
        with self._lock:
            run = self._runs.get(session)
        if run is not None:
            run.stop()
        return run

    def stop_all(self) -> None:
        """Stops what all of them compute."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stop()
