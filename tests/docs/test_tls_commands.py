"""The commands of docs/tls.md, as they stand there but for ports: certificates, both daemons, a service, a rotation."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.support.clone import ROOT
from tests.support.pair import until_ready
from tests.support.processes import bridged, clean_environment, credentiald

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/tls.md").read_text(), re.MULTILINE | re.DOTALL)


def run_block(folder: Path, block: str, **environ: str) -> str:
    """What a shell prints for a block in which every command must succeed; `credentiald` is the one beside this."""
    done = subprocess.run(
        ["bash", "-euc", f'credentiald() {{ python -m credentiald "$@"; }}\n{block}'],
        cwd=folder,
        env=clean_environment(**environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def flags_of(block: str, *without: str) -> list[str]:
    words = shlex.split(block)[2:]
    return [word for place, word in enumerate(words) if not {word, words[place - 1]} & set(without)]


async def test_the_commands_of_the_page_work_one_after_the_other(tmp_path: Path) -> None:
    certificates, serve, administer, bridge_serve, identities, rotate = BLOCKS
    run_block(tmp_path, certificates)
    with credentiald(tmp_path, None, *flags_of(serve)) as plane:
        there = {"CREDENTIALD_ADMIN": plane.addresses["admin"]}
        assert run_block(tmp_path, administer, **there) == ""
        exports = administer.splitlines()[0]

        elsewhere = tmp_path / "bridge"
        elsewhere.mkdir()
        for name in ("ca.pem", "bridge.pem", "bridge.key"):
            shutil.copy(tmp_path / name, elsewhere)
        port = plane.addresses["main"].rpartition(":")[2]
        with bridged(elsewhere, f"localhost:{port}", None, *flags_of(bridge_serve, "--credentiald")) as bridge:
            await until_ready(bridge)

        printed = run_block(tmp_path, f"{exports}\n{identities}", **there)
        assert re.fullmatch(r"dbs_\w+\n", printed), "one of the commands prints a token"
        before = (tmp_path / "credentiald.bridge-token").read_text()
        run_block(tmp_path, f"{exports}\n{rotate}", **there)
        assert (tmp_path / "credentiald.bridge-token").read_text() != before
