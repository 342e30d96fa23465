"""Faults in the system calls of one process, made by strace(1)."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.integration.process_case import wait_until
from tests.integration.warm_nodes import is_gone, is_traced

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is missing; install it to inject faults"
)
_ATTACH_S: Final = 20.0
_END_S: Final = 5.0


class Strace:
    """Traces a process and all its threads while the context lasts.

    `calls` are traced, to `paths` alone if there are any; `fault` is what strace injects into
    them: `signal=KILL:when=7` (counted for each thread and each system call). `options` of
    strace say how the report is written.
    """

    def __init__(
        self,
        pid: int,
        report: Path,
        calls: str,
        fault: str = "",
        *,
        paths: Sequence[Path] = (),
        options: Sequence[str] = (),
    ) -> None:
        self._pid = pid
        self._report = report
        inject = [f"--inject={calls}:{fault}"] if fault else []
        self._command = [
            *("strace", "-f", "-q", "-y", "-o", str(report), f"--trace={calls}"),
            *inject,
            *options,
            *(f"--trace-path={path}" for path in paths),
            *("-p", str(pid)),
        ]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            wait_until(self._is_attached, "strace is attached", deadline_s=_ATTACH_S, poll_s=0.005)
        except BaseException:  # ended, then raised on
            self._end()
            raise
        return self

    def _is_attached(self) -> bool:
        assert self._process.stderr is not None
        assert self._process.poll() is None or is_gone(self._pid), self._process.stderr.read()
        return is_gone(self._pid) or is_traced(self._pid)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        # It ends with the process that it traces; told to stop it lets the process go on. When
        # both come together it may wait for ever.
        if not is_gone(self._pid):
            self._process.terminate()
        try:
            self._process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    @property
    def struck(self) -> int:
        """How often the fault was injected so far."""
        return sum(line.endswith(("(INJECTED)", "(DELAYED)")) for line in self.lines)

    @property
    def lines(self) -> list[str]:
        """What it wrote so far."""
        return self._report.read_text(encoding="utf-8", errors="replace").splitlines()
