"""The chain as one process walks it: prints what came of it as JSON. For tests that want a clean environment.

`python -m tests.support.chain_child REGION`
"""

import json
import logging
import sys
import time

from credentiald.aws.chain import load_ambient
from credentiald.aws.progress import AttemptFailed, Progress
from credentiald.aws.steps import told


def main() -> None:
    """Walk the chain once."""
    # As an operator who looks for a fault would have it; nothing secret may come of that.
    logging.basicConfig(level=logging.DEBUG)
    progress = Progress()
    started = time.monotonic()
    answer: dict[str, object]
    try:
        loaded = load_ambient(sys.argv[1], progress)
    except AttemptFailed as error:
        answer = {"cause": error.failed.cause}
    else:
        material = loaded.material
        answer = {
            "key_id": material.access_key_id.reveal(),
            "has_token": material.session_token is not None,
            "expire_time": loaded.expire_time.timestamp() if loaded.expire_time else None,
        }
    answer["seconds"] = time.monotonic() - started
    answer["steps"] = [[step.name, step.outcome.value, step.detail] for step in progress.steps()]
    answer["told"] = told(progress.steps())
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
