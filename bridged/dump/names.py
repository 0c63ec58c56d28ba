"""Names of a dump's folders and files. Models and paths are what a client says: nothing of them is taken as it is."""

import re
from dataclasses import dataclass

from bridged.dump.needles import Needles

PASSTHROUGH = "passthrough"
OTHERS = "other-models"
_UNKNOWN = "unknown"
_UNFIT = re.compile(r"[^0-9A-Za-z._@+=,:\-]+")
_LONGEST = 96
_LONGEST_PATH = 64
# A client may name any model. Each gets a folder, up to here.
_MOST_MODELS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files of one attempt are: two folders, one in the other, and how the files' names begin."""

    provider: str
    folder: str
    stem: str


class Places:
    """Places of attempts, with as many folders as there may be."""

    def __init__(self) -> None:
        self._models: dict[str, set[str]] = {}

    def of_turn(self, provider: str, model: str, stem: str, needles: Needles) -> Place:
        """Of a request that was read: the folder is that of its model."""
        known = self._models.setdefault(provider, set())
        folder = fit_name(needles.masked_text(model))
        if folder not in known:
            if len(known) >= _MOST_MODELS:
                folder = OTHERS
            else:
                known.add(folder)
        return Place(provider=fit_name(provider), folder=folder, stem=stem)

    def of_pass_through(self, provider: str, path: str, milliseconds: int, rest: str, needles: Needles) -> Place:
        """Of one that was not."""
        shown = fit_name(needles.masked_text(path.strip("/")))[:_LONGEST_PATH]
        return Place(provider=fit_name(provider), folder=PASSTHROUGH, stem=f"{milliseconds}-{shown}-{rest}")


def fit_name(text: str) -> str:
    """A name for one file or folder: no separator, no way up, nothing hidden, of bounded length."""
    fit = _UNFIT.sub("-", text).lstrip(".-")[:_LONGEST]
    return fit or _UNKNOWN
