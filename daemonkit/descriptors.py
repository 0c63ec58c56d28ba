"""How many files and sockets this process may have open, which bounds how many connections it can serve."""

import resource

# For what is open anyway (listeners, logs, credentiald, metrics), attempts to connect, and clients that are told no.
_RESERVED = 64
# Nobody has more clients in one process; and some systems give "no limit" as a number that nothing can be sized by.
_MOST = 1 << 20


def raise_descriptor_limit() -> int:
    """Take all that the process may have: the soft limit is low by custom, for the sake of select(2). The new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # macOS has a limit of its own below what it calls the hard one.
            return soft
    return wanted


def most_pairs(descriptors: int) -> int:
    """How many pairs of connections, a client's and its upstream's, so many descriptors suffice for."""
    return max(1, (descriptors - _RESERVED) // 2)
