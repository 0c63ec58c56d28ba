"""The short form of scripts/records_scale, as anyone would run it: whether every verdict is good."""

import subprocess
import sys

from tests.support.clone import ROOT

DEADLINE_SECONDS = 180


def test_every_question_is_answered_while_records_come_and_a_tenth_is_purged():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "records_scale", "--short"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[-1] == "all good"
    assert sum(line.startswith("ok ") for line in lines) == 19
