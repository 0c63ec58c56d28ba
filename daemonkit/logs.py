"""Logs: for people on stderr, for machines as one JSON object a line. A sentence, then facts in `extra`.

Nothing a client sent can forge a line, because control characters are escaped. Secrets print as a mask, and so does
any text with the form of one of our tokens; that is the backstop, not the rule. Logging never raises and never waits
for a reader (log_writer.py).
"""

import errno
import json
import logging
import os
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TextIO

from daemonkit.log_writer import LogWriter
from daemonkit.secret import masked
from daemonkit.settings import ConfigErrors

log = logging.getLogger(__name__)

STDERR, STDOUT, NOWHERE = "stderr", "-", ""
_TARGETS = {
    "": NOWHERE,
    "none": NOWHERE,
    "stderr": STDERR,
    "/dev/stderr": STDERR,
    "stdout": STDOUT,
    "/dev/stdout": STDOUT,
    "-": STDOUT,
}
Render = Callable[[logging.LogRecord], str]

# Of a process that ends at once.
_LAST_SECONDS = 0.5
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_OWN_FIELDS = frozenset({"time", "level", "msg", "logger", "exception"})


def parse_log_target(text: str) -> str:
    """`stderr`, `-` for stdout, a path, or the empty text for nowhere; `none` means nowhere."""
    trimmed = text.strip()
    return _TARGETS.get(trimmed, trimmed)


def log_target_problem(target: str) -> str | None:
    """Why a target of `parse_log_target` could not be written, found out without making the file; None if it can."""
    if target in (NOWHERE, STDERR, STDOUT):
        return None
    if os.path.isdir(target):
        return f"cannot write {target!r}: it is a folder"
    folder = os.path.dirname(target) or "."
    if os.access(target if os.path.exists(target) else folder, os.W_OK):
        return None
    return f"cannot write {target!r}: {'no permission' if os.path.isdir(folder) else 'there is no such folder'}"


def log_errors(human: str, json: str, check: Callable[[str], str | None]) -> list[str]:
    """An error for each log that `check` finds a problem with."""
    problems = {"log_human": check(human), "log_json": check(json)}
    return [f"{name}: {problem}" for name, problem in problems.items() if problem]


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What `extra` brought; a fact with a name of ours gets `fact_` in front."""
    return {
        f"fact_{name}" if name in _OWN_FIELDS else name: value
        for name, value in record.__dict__.items()
        if name not in _STANDARD
    }


def json_line(record: logging.LogRecord) -> str:
    """One JSON object: `time level msg logger`, then the facts, then `exception` if there is one."""
    fields: dict[str, object] = {
        "time": _time(record),
        "level": record.levelname.lower(),
        "msg": _message(record),
        "logger": record.name,
        **facts(record),
    }
    if record.exc_info:
        fields["exception"] = _exception(record)
    return masked(json.dumps(fields, default=_plain, skipkeys=True))


def human_line(record: logging.LogRecord) -> str:
    """One line with the facts as `key=value`; the lines of a traceback follow, each with a mark in front."""
    words = [_time(record), f"{record.levelname.lower():<7}", escaped(record.name), escaped(_message(record))]
    words += [f"{escaped(name)}={_human_value(value)}" for name, value in facts(record).items()]
    lines = [" ".join(words)]
    if record.exc_info:
        lines += [f"    | {escaped(line)}" for line in _exception(record).split("\n")]
    return masked("\n".join(lines))


def escaped(text: str) -> str:
    """The text with everything that a terminal would not show as a character written as `\\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _human_value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=_plain, skipkeys=True)
    if isinstance(value, str) and (not text or any(one in ' ="\\' for one in text)):
        return escaped(json.dumps(text, ensure_ascii=False))
    return escaped(text)


def _plain(value: object) -> object:
    """What JSON does not know, as text. A Secret is its mask here, because `str` of it is."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} (its arguments do not fit)"


def _exception(record: logging.LogRecord) -> str:
    if not record.exc_info:
        return ""
    return "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")


def announce(listener: str, address: object) -> None:
    """The line by which others find a listener, port 0 or not: in the log, or on stderr where the log would not say."""
    handlers = [one for one in logging.getLogger().handlers if not isinstance(one, logging.NullHandler)]
    if handlers and log.isEnabledFor(logging.INFO):
        log.info("listening", extra={"listener": listener, "address": str(address)})
    else:
        print(f"listening listener={listener} address={address}", file=sys.stderr, flush=True)  # noqa: T201


def lost_lines() -> int:
    """How many lines the logs that run now have lost."""
    return sum(one.writer.lost for one in logging.getLogger().handlers if isinstance(one, _LineHandler))


def _loss(lines: int) -> logging.LogRecord:
    fields = {
        "name": __name__,
        "levelname": "WARNING",
        "msg": "log lines were lost: the log was not read",
        "lines": lines,
    }
    return logging.makeLogRecord(fields)


def end_logs() -> None:
    """Write what is queued, within two seconds: for a process that ends without leaving `running_logs`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LineHandler):
            handler.end(_LAST_SECONDS)


class _LineHandler(logging.Handler):
    """Renders a record where it was logged, so that facts cannot change before they are written."""

    def __init__(self, render: Render, writer: LogWriter) -> None:
        super().__init__()
        self._render = render
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._render(record)
        except Exception as error:
            line = json.dumps({"level": "error", "msg": "a log record cannot be shown", "error": type(error).__name__})
        self.writer.write(line)

    def end(self, seconds: float) -> None:
        """Write what is queued, within the time."""
        self.writer.close(seconds)


@contextmanager
def running_logs(*, human: str, json: str, level: int, shared: bool = False) -> Iterator[None]:
    """Log to targets of `parse_log_target` for the length of the block, then write what is queued.

    `shared` where other processes write to them, too. ConfigErrors if a file cannot be opened.
    """
    with ExitStack() as stack:
        handlers: list[logging.Handler] = []
        errors = []
        mutexes: defaultdict[tuple[int, int], threading.Lock] = defaultdict(threading.Lock)
        for name, target, render in (("log_human", human, human_line), ("log_json", json, json_line)):
            if target == NOWHERE:
                continue
            try:
                writer = _writer(target, render, mutexes, shared=shared)
            except OSError as error:
                errors.append(f"{name}: cannot write {target!r}: {error.strerror or type(error).__name__}")
                continue
            stack.callback(writer.close)
            handlers.append(_LineHandler(render, writer))
        if errors:
            raise ConfigErrors(errors)
        stack.enter_context(_root_logger(handlers or [logging.NullHandler()], level))
        yield


@contextmanager
def _root_logger(handlers: list[logging.Handler], level: int) -> Iterator[None]:
    root = logging.getLogger()
    handlers_before, level_before = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(level)
    try:
        yield
    finally:
        root.handlers[:] = handlers_before
        root.setLevel(level_before)


def _writer(
    target: str, render: Render, mutexes: defaultdict[tuple[int, int], threading.Lock], *, shared: bool
) -> LogWriter:
    """OSError if the target cannot be opened. Both logs may go to one file, under whatever names."""
    owned = target not in (STDERR, STDOUT)
    if owned:
        fd = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    else:
        fd = _descriptor(sys.stderr if target == STDERR else sys.stdout)
    about = os.fstat(fd)
    mutex = mutexes[about.st_dev, about.st_ino]
    return LogWriter(fd, lambda lines: render(_loss(lines)), owned=owned, mutex=mutex, shared=shared)


def _descriptor(stream: TextIO | None) -> int:
    """OSError for one that was closed before the start: another file may have its number."""
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return stream.fileno()
