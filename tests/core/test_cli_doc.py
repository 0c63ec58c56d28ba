"""docs/cli.md says what the commands say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_document_of_the_command_line_is_what_the_commands_say():
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts/gen_cli_doc", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_command_of_the_fixed_interface_is_in_the_document():
    document = (ROOT / "docs/cli.md").read_text()
    fixed = {
        "": ("init", "serve", "config check", "explain"),
        "users ": ("create", "list", "show", "suspend", "resume", "delete"),
        "tokens ": ("create", "list", "revoke"),
        "services ": ("create", "list", "rotate", "delete"),
        "providers ": ("create", "list", "show", "update", "delete"),
        "keys ": ("set", "delete", "list"),
    }
    missing = [
        f"{noun}{verb}"
        for noun, verbs in fixed.items()
        for verb in verbs
        if f"\n## credentiald {noun}{verb}\n" not in document
    ]
    assert missing == []
