"""Keys are in this process's memory: no core dump writes them to a disk, no process of the same user looks in."""

import ctypes
import logging
import resource

log = logging.getLogger(__name__)

# prctl(2), linux/prctl.h.
_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """From here on no core dump, and of Linux neither ptrace(2) nor what stands in /proc for the owner alone.

    A process with CAP_SYS_PTRACE, as root has it, may still look. Best effort: what a system does not have is told at
    debug level. Does not outlast exec(2), so every process asks for itself.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        log.debug("the limit of core dumps could not be set", extra={"problem": str(error)})
    # A handler of core dumps that the kernel pipes them to does not look at the limit, but gets nothing for these.
    try:
        refused = ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        refused = -1
    if refused:
        log.debug("the system does not keep other processes out of this one's memory")
