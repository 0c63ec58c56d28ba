"""Fuzzes one target: python -m tests.fuzz.driver TARGET SECONDS FOLDER [SEED]; scripts/fuzz calls it.

With atheris where it is installed, which is led by what of our code an input reaches; else by changing the seeds at
random. Prints the number of inputs last, as `inputs N`. What raises is a finding: it is kept in FOLDER/found.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.http1_mutations import changed

MAX_INPUT_BYTES = 4096
# No input of that size may make us ask for so much more than we have at the begin.
MEMORY_BYTES = 1 << 30
INPUT_SECONDS = 10
INSTRUMENTED = ["bridged", "credentiald", "daemonkit"]


def target(name: str, *, instrumented: bool = False) -> Any:
    """The module of a target, with what it imports of ours made to tell where it goes."""
    if not instrumented:
        return importlib.import_module(f"tests.fuzz.targets.{name}")
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        return importlib.import_module(f"tests.fuzz.targets.{name}")


def inputs(seeds: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> Iterator[bytes]:
    """Every seed, then seeds changed in some places, joined, and noise, without an end."""
    yield from seeds
    while True:
        data = dice.choice(seeds)
        if dice.random() < 0.1:
            data += dice.choice(seeds)
        if dice.random() < 0.03:
            data = data[:3] + dice.randbytes(dice.randrange(200))
        changes = [
            (
                dice.randrange(len(data) + 1),
                dice.choice((0, 0, 1, 1, 2, 8, 40)),
                dice.choice((dice.choice(words), dice.choice(words), dice.randbytes(1), b"", dice.choice(words) * 3)),
            )
            for _ in range(dice.choice((1, 1, 2, 3, 8)))
        ]
        yield changed(data, changes)[:MAX_INPUT_BYTES]


def bound_memory() -> None:
    """From here on a request for too much is a MemoryError, which is a finding."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def by_chance(name: str, seconds: float, folder: Path, seed: int) -> int:
    """The exit status."""
    module = target(name)
    bound_memory()
    end, tried = time.monotonic() + seconds, 0
    for data in inputs(module.SEEDS, module.WORDS, random.Random(f"{seed}:{name}")):
        began = time.monotonic()
        if began >= end and tried >= len(module.SEEDS):
            break
        tried += 1
        try:
            module.one_input(data)
            took_seconds = time.monotonic() - began
            assert took_seconds < INPUT_SECONDS, f"it took {took_seconds:.1f} s"  # noqa: PT018, RUF100
        except Exception:
            found = folder / "found"
            found.mkdir(parents=True, exist_ok=True)
            path = found / f"{name}-{tried}"
            path.write_bytes(data)
            traceback.print_exc()
            print(f"finding: {data!r}, kept as {path}\ninputs {tried}", flush=True)
            return 1
    print(f"inputs {tried}", flush=True)
    return 0


def by_coverage(name: str, seconds: float, folder: Path) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    module = target(name, instrumented=True)
    for part in ("seeds", "learnt", "found"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(module.SEEDS):
        (folder / "seeds" / f"{number:04}").write_bytes(data[:MAX_INPUT_BYTES])
    words = folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in module.WORDS))
    one_input: Callable[[bytes], None] = module.one_input
    options = [
        f"-max_total_time={max(1, round(seconds))}", f"-timeout={INPUT_SECONDS}", f"-max_len={MAX_INPUT_BYTES}",
        f"-rss_limit_mb={MEMORY_BYTES >> 20}", "-malloc_limit_mb=256", "-print_final_stats=1", "-verbosity=0",
        f"-dict={words}", f"-artifact_prefix={folder}/found/", str(folder / "learnt"), str(folder / "seeds"),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def main(name: str, seconds: float, folder: Path, seed: int) -> int:
    if importlib.util.find_spec("atheris") is None:
        return by_chance(name, seconds, folder, seed)
    by_coverage(name, seconds, folder)
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--by-chance":
        del sys.argv[1]
        sys.exit(by_chance(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), int([*sys.argv, "0"][4])))
    sys.exit(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), int([*sys.argv, "0"][4])))
