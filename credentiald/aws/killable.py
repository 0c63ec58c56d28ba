"""A credential_process with an end: botocore would wait for it for ever.

It ends when it is overdue, and when nobody wants its answer any more: it must not outlive credentiald.
"""

import os
import signal
import subprocess
from contextlib import suppress
from typing import Any

from credentiald.aws.failures import ProcessOverdue
from credentiald.aws.progress import Progress

PROCESS_SECONDS = 8.0
# The settings of our own daemons, sealing keys and tokens among them, are no business of such a process.
_OURS = ("CREDENTIALD_", "BRIDGED_", "CODER_AIBRIDGE_")


class KillableProcess:
    """What botocore's ProcessProvider wants of a Popen. Its process, with all children, is killed when it is overdue.

    What it writes to stderr is dropped, because botocore would put it into an error.
    """

    def __init__(self, progress: Progress, arguments: list[str], **_pipes: Any) -> None:
        self._progress = progress
        self._process = subprocess.Popen(  # noqa: S603 - the operator's own credential_process
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
        )
        self.returncode: int | None = None

    def communicate(self) -> tuple[bytes, bytes]:
        """What it printed, and nothing for stderr; ProcessOverdue when it was killed."""
        with self._progress.stoppable(self._kill_group):
            try:
                printed, _ = self._process.communicate(timeout=PROCESS_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill()
                raise ProcessOverdue from None
        self.returncode = self._process.returncode
        return printed, b""

    def _kill_group(self) -> None:
        # The group outlives its leader, so its id is still the group's; unless all of it has just been waited for.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _kill(self) -> None:
        self._kill_group()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
