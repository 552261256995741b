"""Work of seconds to minutes that a page asks for and looks at again later. Kept in memory: what it leaves is files."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from smartcash.domain.errors import SmartCashError

KEPT = 50


@dataclass(frozen=True)
class Job:
    """`state`: running, done, failed, or stopped by whoever asked for it. `subject`: what it is about, e.g. a run. Times
    in s since 1970. `share`: asked how much of it is done, 0 to 1, while it runs; None: it cannot be told. `stop`: makes
    the work end soon with a SmartCashError; None: it cannot be stopped."""

    id: str
    kind: str
    subject: str
    state: str
    began: float
    ended: float | None = None
    result: Any = None
    error: SmartCashError | None = None
    share: Callable[[], float] | None = None
    stop: Callable[[], None] | None = None

    def facts(self) -> dict[str, Any]:
        """Plain values, without result and error."""
        names = ("id", "kind", "subject", "state", "began", "ended")
        return {**{name: getattr(self, name) for name in names}, "share": self._done()}

    def _done(self) -> float | None:
        if self.share is None or self.state in ("failed", "stopped"):
            return None
        return self.share() if self.state == "running" else 1.0


class Jobs:
    """The jobs of one server, newest last; the oldest that have ended are forgotten."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._threads: dict[str, threading.Thread] = {}  # of those that run
        self._stopped: set[str] = set()  # of those that run, which are to end
        self._lock = threading.Lock()

    def begin(
        self,
        kind: str,
        subject: str,
        work: Callable[[], Any],
        share: Callable[[], float] | None = None,
        stop: Callable[[], None] | None = None,
    ) -> Job:
        """Run `work` in a thread of its own. One of the same kind and subject that still runs is given back instead.

        A SmartCashError makes the job failed, or stopped if it was to be; any other error is a fault of the program and
        is raised in the thread, which leaves the job failed without an error."""
        with self._lock:
            same = (
                j for j in self._jobs.values() if (j.kind, j.subject, j.state) == (kind, subject, "running")
            )
            if (already := next(same, None)) is not None:
                return already
            job = Job(secrets.token_hex(6), kind, subject, "running", time.time(), share=share, stop=stop)
            thread = threading.Thread(target=self._run, args=(job, work), name=f"job-{kind}", daemon=True)
            thread.start()  # it ends no sooner than it is known here: that takes the lock
            self._jobs[job.id], self._threads[job.id] = job, thread
            over = [each.id for each in self._jobs.values() if each.state != "running"]
            for old in over[: max(0, len(self._jobs) - KEPT)]:
                del self._jobs[old]
        return job

    def _run(self, job: Job, work: Callable[[], Any]) -> None:
        ended = replace(job, state="failed")
        try:
            ended = replace(job, state="done", result=work())
        except SmartCashError as error:
            with self._lock:
                stopped = job.id in self._stopped
            ended = replace(job, state="stopped") if stopped else replace(job, state="failed", error=error)
        finally:
            with self._lock:
                self._jobs[job.id] = replace(ended, ended=time.time())
                self._stopped.discard(job.id)
                del self._threads[job.id]

    def stop(self, job: Job) -> None:
        """Have a job end that can be stopped; one that has ended stays as it is. It may still come to its end."""
        assert job.stop is not None
        with self._lock:
            if job.id not in self._threads:
                return
            self._stopped.add(job.id)
        job.stop()

    def settle(self, kind: str) -> None:
        """Wait until no job of this kind runs any more."""
        with self._lock:
            threads = [thread for name, thread in self._threads.items() if self._jobs[name].kind == kind]
        for thread in threads:
            thread.join()

    def find(self, name: str) -> Job | None:
        """The job with this id."""
        with self._lock:
            return self._jobs.get(name)

    def all(self) -> list[Job]:
        """Newest first."""
        with self._lock:
            return list(self._jobs.values())[::-1]
