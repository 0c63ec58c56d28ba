"""Python's garbage collector in a process that serves for long."""

import gc


def leave_what_is_there() -> None:
    """Take all that was made so far for what lives as long as the process, and look through the rest seldom.

    To look through everything stops every thread for a tenth of a second and more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
