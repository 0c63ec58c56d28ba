"""A type for what must not leak.

`reveal` is rare by design: grep for it to audit where plaintext goes (ARCHITECTURE.md lists the places).
"""

import hmac
import re
from typing import Never, final

MASK = "Secret(…)"
# dbu_ and dbs_ with 49 base-62 characters are our tokens; a token that was cut is masked as well.
_TOKEN = re.compile(r"db[us]_[0-9A-Za-z]{16,}")


def masked(text: str) -> str:
    """The text without anything that has the form of one of our tokens."""
    return _TOKEN.sub(MASK, text)


@final
class Secret:
    """Key or token material that cannot be printed, formatted, pickled or logged by accident.

    Every textual form is `Secret(…)`, also in tracebacks, f-strings and dataclass reprs. Python cannot wipe
    memory, so nothing here promises that.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The material itself. Call it where the bytes leave us, nowhere else."""
        return self._value

    def is_blank(self) -> bool:
        """Whether there is nothing but white space: such a key counts as none."""
        return not self._value.strip()

    def size_bytes(self) -> int:
        """Length of the UTF-8 form, for limits."""
        return len(self._value.encode("utf-8", "surrogatepass"))

    def stripped(self) -> "Secret":
        """The same without white space around it."""
        return Secret(self._value.strip())

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (s._value.encode("utf-8", "surrogatepass") for s in (self, other))
        return hmac.compare_digest(mine, theirs)

    # A hash of key material would be as good as the material to somebody who guesses.
    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Never:
        raise TypeError("a Secret cannot be pickled or copied into another process")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self
