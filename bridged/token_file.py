"""The file with the service token, which an operator may replace while the bridge runs."""

import logging
import re
from collections.abc import Callable

from daemonkit.secret import Secret
from daemonkit.settings import ReadFile, read_text_file, secret_text

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[!-~]+")


class TokenFile:
    """What the file held last; `renewed` is called with a token that is another one.

    What cannot be read, as a file that is just being written, changes nothing and is said once.
    """

    def __init__(
        self,
        path: str,
        token: Secret | None,
        renewed: Callable[[Secret], None],
        read_file: ReadFile = read_text_file,
    ) -> None:
        self._path = path
        self._token = token
        self._renewed = renewed
        self._read_file = read_file
        self._told = ""

    def read(self) -> Secret | str:
        """The token in the file, or what is wrong with it."""
        try:
            text = secret_text("", "", "the service token", self._path, self._read_file).strip()
        except ValueError as error:
            return str(error)
        # What cannot stand in a header would be no refusal but an error of ours.
        return Secret(text) if _TOKEN.fullmatch(text) else f"{self._path!r} holds no token"

    def use(self, found: Secret | str) -> None:
        """Take what was read, or say why not."""
        if isinstance(found, str):
            # Where there was no file from the start, a certificate may do.
            if found != self._told and self._token is not None:
                log.warning("the service token cannot be read: the one before stays in use", extra={"problem": found})
            self._told = found
            return
        self._told = ""
        if found != self._token:
            self._token = found
            log.info("there is a new service token", extra={"path": self._path})
            self._renewed(found)
