"""A credential_process with an end: botocore would wait for it for ever."""

import os
import signal
import subprocess
from typing import Any

from credentiald.aws.failures import ProcessOverdue

PROCESS_SECONDS = 8.0
# The settings of our own daemons, sealing keys and tokens among them, are no business of such a process.
_OURS = ("CREDENTIALD_", "BRIDGED_", "CODER_AIBRIDGE_")


class KillableProcess:
    """What botocore's ProcessProvider wants of a Popen. Its process, with all children, is killed when it is overdue.

    What it writes to stderr is dropped, because botocore would put it into an error.
    """

    def __init__(self, arguments: list[str], **_pipes: Any) -> None:
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
        try:
            printed, _ = self._process.communicate(timeout=PROCESS_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            raise ProcessOverdue from None
        self.returncode = self._process.returncode
        return printed, b""

    def _kill(self) -> None:
        # The group outlives its leader, so its id is still the group's.
        os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
