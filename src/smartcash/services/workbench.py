"""Workbenches: worker processes that stay alive and answer questions about data sets and models.

Whoever shows things (the web page) never loads torch; it asks. `python -m smartcash answer` reads one question a line
from its standard input and writes one answer a line; it ends when its input ends, so also when whoever asks is killed,
and when nobody has asked for `IDLE_S`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from smartcash.domain.errors import Problem, SmartCashError, WorkbenchFailed
from smartcash.services.run_store import home

IDLE_S = 600.0
LAST_BYTES = 2000
LOOK_S = 0.2  # so often is it seen that a question was given up which waits for its turn


class Refusal(SmartCashError):
    """An error that a worker answered with, under its own code; `problems` as it found them."""

    def __init__(self, code: str, facts: dict[str, Any], message: str, problems: list[Problem]) -> None:
        super().__init__(code, **facts)
        self.said, self.problems = message, problems

    def message(self, language: str | None = None) -> str:
        """As the worker said it, in the language of the question."""
        return self.said


class Workbench:
    """One worker process, begun by the first question; one question at a time. Safe to use from several threads.

    `home` is where it looks for runs and model versions."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._turn = threading.Lock()
        self._beginning = threading.Lock()  # none is begun that `close` would not see
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._end_wish: threading.Event | None = None  # of the question that it is at
        self._said: IO[bytes] = BytesIO()  # what the process prints

    def ask(
        self,
        question: str,
        *,
        language: str | None = None,
        again: bool = True,
        end_wish: threading.Event | None = None,
        **facts: Any,
    ) -> Any:
        """The answer to a question (a name in `worker.answers` or `worker.data_answers`) about plain values.

        A process that ends before it has answered is begun anew, once: it may have ended because nobody asked for
        long, or was killed meanwhile. Not for a question that leaves something half done: `again` is False then.
        A question with an `end_wish` may be given up, see `give_up`. Raises Refusal with the worker's own error,
        WorkbenchFailed when the last one died over it too, `close` was called, or it was given up."""
        line = (json.dumps({"ask": question, "language": language, **facts}) + "\n").encode()
        reason = ""
        with self._alone(end_wish):
            for _ in range(2 if again else 1):
                process = self._running(end_wish)
                if process is None:
                    break
                assert process.stdin is not None and process.stdout is not None
                try:
                    process.stdin.write(line)
                    process.stdin.flush()
                    answer = process.stdout.readline()
                except (BrokenPipeError, ValueError):  # it has ended, or `close` has closed its input
                    answer = b""
                with self._beginning:
                    self._end_wish = None  # from here on nobody ends the process for this question
                    given_up = end_wish is not None and end_wish.is_set()
                if not answer.endswith(b"\n") or given_up:
                    reason = self._end()
                if answer.endswith(b"\n"):
                    return _understood(answer)
            raise WorkbenchFailed("workbench_failed", reason=reason)

    @contextmanager
    def _alone(self, end_wish: threading.Event | None) -> Iterator[None]:
        """The turn of a question. Raises WorkbenchFailed when it is given up before its turn comes."""
        while not self._turn.acquire(timeout=-1 if end_wish is None else LOOK_S):
            if end_wish is not None and end_wish.is_set():
                raise WorkbenchFailed("workbench_failed", reason="")
        try:
            yield
        finally:
            self._turn.release()

    def give_up(self, end_wish: threading.Event) -> None:
        """The question that has this wish is not asked any more, or the process that is at it is ended."""
        with self._beginning:
            end_wish.set()
            if self._end_wish is end_wish and self._process is not None:
                self._process.kill()

    def close(self, *, at_once: bool = True) -> None:
        """End the process: now, or when it has finished what it is at."""
        with self._beginning:
            self._closed = True
            process = self._process
        if process is None:
            return
        if self._turn.acquire(blocking=False):  # it is at nothing
            self._end()
            self._turn.release()
        elif at_once:
            process.kill()
        else:
            assert process.stdin is not None
            process.stdin.close()

    def _running(self, end_wish: threading.Event | None) -> subprocess.Popen[bytes] | None:
        """The process; None after `close`, or when the question was given up."""
        with self._beginning:
            if self._closed or (end_wish is not None and end_wish.is_set()):
                return None
            self._end_wish = end_wish
            if self._process is not None and self._process.poll() is None:
                return self._process
            self._end()
            self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `_end`)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "smartcash", "answer", "--home", str(self.home.absolute())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, start_new_session=True,
                env={**os.environ, "SMARTCASH_HOME": str(self.home.absolute())},
            )  # fmt: skip
            return self._process

    def _end(self) -> str:
        """End the process, if there is one; the last that it said."""
        if self._process is None:
            return ""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # it died before it had read everything
                continue
        self._process = None
        with self._said as said:
            said.seek(max(0, said.seek(0, os.SEEK_END) - LAST_BYTES))
            return said.read().decode(errors="replace").strip() or f"exit {code}"


@lru_cache(maxsize=1000)
def backbone_problems(name: str) -> list[Problem]:
    """What is wrong with the name of a backbone, from a worker begun for this one question; kept for as long as this
    process lives. Raises WorkbenchFailed."""
    bench = Workbench(home())
    try:
        return [Problem(**problem) for problem in bench.ask("problems_of_backbone", name=name)]
    finally:
        bench.close()


def _understood(answer: bytes) -> Any:
    """What the worker answered. Raises Refusal for its error."""
    found = json.loads(answer)
    if "error" in found:
        error = found["error"]
        problems = [Problem(p["field"], p["code"], p["value"], p["facts"]) for p in error["problems"]]
        raise Refusal(error["code"], error["facts"], error["message"], problems)
    return found["answer"]
