"""Writes what a fuzzer of tests/fuzz starts from: python -m tests.support.fuzz_seeds DRIVER SEEDS_FOLDER WORDS_FILE."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import http1_answer_mutations, http1_mutations

# Seeds, and words that a mutation may put anywhere.
DRIVERS: dict[str, tuple[Sequence[bytes], Sequence[bytes]]] = {
    "fuzz_requests": ([b"\0\0" + seed for seed in http1_mutations.SEEDS], http1_mutations.MORSELS),
    "fuzz_responses": (
        [flag + b"\0\0" + seed for flag in (b"\0", b"\1") for seed in http1_answer_mutations.ANSWERS],
        http1_answer_mutations.MORSELS,
    ),
}


def main(driver: str, folder: Path, words: Path) -> None:
    seeds, morsels = DRIVERS[driver]
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"{number:04}").write_bytes(seed)
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in morsel) + '"' for morsel in morsels)
    words.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
