"""Tasks that run until they are cancelled, and libraries that answer a cancellation with something else."""

import asyncio


def end_if_cancelled() -> None:
    """Raise CancelledError where the running task has been told to end, and what it awaited did not pass that on.

    gRPC answers a cancellation that meets the end of a call with the call's own answer or error, and Python 3.11's
    `wait_for` with a result that has just come. A loop that asks here once in each turn ends all the same.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
