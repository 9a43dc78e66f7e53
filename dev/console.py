"""Progress on a terminal, plain lines elsewhere, and failures as one sentence."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator


class Problem(Exception):
    """A failure that the reader can act on.

    Args:
        cause: what went wrong, as one sentence without a full stop.
        cure: what to do about it, as one sentence without a full stop.
    """

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}. {cure}.")
        self.cause = cause
        self.cure = cure


def duration(seconds: float) -> str:
    """``7.4 s`` or ``3 min 20 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


class Console:
    """Prints the steps of a command with their times.

    On a terminal the running step shows a moving clock and its latest detail; elsewhere each
    step is one line when it starts to take long and one when it ends. Steps may run in several
    threads at once: each line is written whole.
    """

    SLOW = 15.0

    def __init__(self, stream=None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self.began = time.monotonic()
        self.times: list[tuple[str, float]] = []
        self._lock = threading.RLock()
        self._running: dict[int, tuple[str, float, list[str]]] = {}
        self._ticker: threading.Thread | None = None

    def say(self, text: str = "") -> None:
        """Print a line of its own."""
        with self._lock:
            self._clear()
            print(text, file=self.stream, flush=True)
            self._draw()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Time a step: ``with console.step("Building images") as step: step.detail("hub")``."""
        key, start, detail = id(object()), time.monotonic(), [""]
        key = hash((threading.get_ident(), title, start))
        with self._lock:
            self._running[key] = (title, start, detail)
            self._tick()
        step = Step(detail)
        why: BaseException | None = None
        try:
            yield step
        except BaseException as error:
            why = error
            raise
        finally:
            took = time.monotonic() - start
            with self._lock:
                self._clear()
                self._running.pop(key)
                self.times.append((title, took))
                note = f" ({step.note})" if step.note else ""
                print(f"{'✗' if why else '✓'} {title}{note}  {duration(took)}", file=self.stream, flush=True)
                if isinstance(why, Exception):
                    # What runs beside may take minutes before the command can end and say it.
                    reason = str(why) if isinstance(why, Problem) else f"{type(why).__name__}: {why}"
                    print(f"  {reason}", file=self.stream, flush=True)
                self._draw()

    def _tick(self) -> None:
        if self._ticker and self._ticker.is_alive():
            return
        self._ticker = threading.Thread(target=self._loop, daemon=True)
        self._ticker.start()

    def _loop(self) -> None:
        said: dict[int, float] = {}
        while True:
            time.sleep(0.2 if self.live else 1.0)
            with self._lock:
                if not self._running:
                    return
                if self.live:
                    self._clear()
                    self._draw()
                    continue
                for key, (title, start, detail) in self._running.items():
                    took = time.monotonic() - start
                    # CI logs: a sign of life at 15 s, then each minute
                    if took >= said.get(key, self.SLOW):
                        said[key] = took + 60
                        extra = f": {detail[0]}" if detail[0] else ""
                        print(f"… {title}{extra}  {duration(took)}", file=self.stream, flush=True)

    def _clear(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[2K")

    def _draw(self) -> None:
        if not (self.live and self._running):
            return
        parts = []
        for title, start, detail in self._running.values():
            extra = f": {detail[0]}" if detail[0] else ""
            parts.append(f"{title}{extra} {duration(time.monotonic() - start)}")
        width = os.get_terminal_size(self.stream.fileno()).columns if self.stream.isatty() else 100
        self.stream.write(("… " + " · ".join(parts))[: width - 1])
        self.stream.flush()


class Step:
    """The running step: ``detail`` is what it does now, ``note`` stays on its last line."""

    def __init__(self, detail: list[str]) -> None:
        self._detail = detail
        self.note = ""

    def detail(self, text: str) -> None:
        """Say what the step is doing now."""
        self._detail[0] = text.strip()[:80]
