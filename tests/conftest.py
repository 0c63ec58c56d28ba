"""No test sees the AWS configuration of the machine that it runs on, nor asks a metadata service.

And no property is about time: how long an example takes says what else the machine does. Its examples are the same in
each run, so that a run says something about what was changed since the last one; new ones are scripts/fuzz's to find,
and `--hypothesis-profile=default`'s. Nor does the collector go through what all the modules hold in the middle of a
test: that stops the loop for a third of a second.
"""

import gc
import os

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
os.environ |= {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
