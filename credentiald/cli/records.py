"""`credentiald records`: what was asked of upstreams, by whom, and what it took."""

import csv
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click
from drawbridge.v1 import usage_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.catalog import CATALOG
from credentiald.cli.errors import Refused
from credentiald.cli.options import Destination, administers, check_one_user, names_user
from credentiald.cli.output import Output, echo_columns, echo_json, printable, text_of, to_dict
from credentiald.prices import written_usd
from daemonkit.durations import parse_duration

Command = Callable[..., None]
Items = Callable[[Any], Iterable[Any]]

DIMENSIONS = {
    "day": pb.USAGE_DIMENSION_DAY,
    "user": pb.USAGE_DIMENSION_USER,
    "provider": pb.USAGE_DIMENSION_PROVIDER,
    "model": pb.USAGE_DIMENSION_MODEL,
    "client": pb.USAGE_DIMENSION_CLIENT,
}
SESSION_COLUMNS = {
    "SESSION": "session_id",
    "USER": "username",
    "CLIENT": "client",
    "PROVIDERS": "providers",
    "MODELS": "models",
    "LAST ACTIVE": "last_active_time",
    "REQUESTS": "interceptions",
    "THREADS": "threads",
    "INPUT": "tokens.input_tokens",
    "OUTPUT": "tokens.output_tokens",
    "CACHE READ": "tokens.cache_read_input_tokens",
    "CACHE WRITE": "tokens.cache_write_input_tokens",
    "COST USD": "cost",
    "LAST PROMPT": "last_prompt",
}
INTERCEPTION_COLUMNS = {
    "ID": "id",
    "STARTED": "start_time",
    "USER": "username",
    "PROVIDER": "provider",
    "MODEL": "model",
    "CLIENT": "client",
    "OUTCOME": "outcome",
    "STATUS": "http_status",
    "INPUT": "tokens.input_tokens",
    "OUTPUT": "tokens.output_tokens",
    "CACHE READ": "tokens.cache_read_input_tokens",
    "CACHE WRITE": "tokens.cache_write_input_tokens",
    "COST USD": "cost",
}
_PROMPT_CHARACTERS = 60
_AGENT_CHARACTERS = 60
# As bridges call a client that says nothing they know; its user agent tells more.
_UNKNOWN_CLIENT = "Unknown"


def moment(ctx: click.Context, param: click.Parameter, text: str | None) -> Timestamp | None:
    """A time in UTC, or how long ago: `2026-11-22`, `2026-11-22T09:30Z`, `7d`."""
    del ctx, param
    if text is None:
        return None
    message = Timestamp()
    try:
        message.FromDatetime(_written(text))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: write 2026-11-22, 2026-11-22T09:30Z, or 7d for seven days ago"
        ) from None
    return message


def _written(text: str) -> datetime:
    try:
        return datetime.now(UTC) - parse_duration(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_FILTERS = (
    click.option("--provider", default="", metavar="NAME", help="Of this provider."),
    click.option("--model", default="", metavar="MODEL", help="For this model, as the client named it."),
    click.option("--client", default="", metavar="NAME", help="From this client, such as 'Claude Code'."),
    click.option("--since", callback=moment, metavar="TIME", help="From then on: a time in UTC, or 7d for a week ago."),
    click.option("--until", callback=moment, metavar="TIME", help="Before then."),
)
_SESSION_FILTERS = (
    click.option(
        "--type", "provider_type", type=click.Choice(list(CATALOG)), metavar="TYPE", help="Of providers of this type."
    ),
    click.option("--session", "session_id", default="", metavar="ID", help="Of this session."),
)
_limit = click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(min=1), metavar="N", help="At most this many."
)


def _filters(*more: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Gives a command `wanted`, a filter, and `mine` in place of these options."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(
            *,
            user: str,
            mine: bool,
            since: Timestamp | None,
            until: Timestamp | None,
            provider: str,
            model: str,
            client: str,
            provider_type: str | None = None,
            session_id: str = "",
            **arguments: Any,
        ) -> None:
            check_one_user(user, mine=mine)
            if since is not None and until is not None and since.ToNanoseconds() > until.ToNanoseconds():
                raise click.UsageError("--since is after --until: nothing lies between them")
            wanted = pb.UsageFilter(
                user=user,
                provider=provider,
                provider_type=provider_type or "",
                model=model,
                client=client,
                session_id=session_id,
                start_after=since,
                start_before=until,
                mine=mine,
            )
            command(wanted=wanted, mine=mine, **arguments)

        options: Sequence[Callable[[Command], Command]] = (*_FILTERS, *more, names_user)
        decorated: Command = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _asked_for(mine: bool, items: Items) -> Items:
    """The items of a page, Refused where they may be everybody's though one's own are wanted."""

    def checked(page: Any) -> Iterable[Any]:
        if mine and not page.user_id:
            # It does not know the filter, and would show an administrator all there is.
            raise Refused("credentiald is older than this program, and cannot be asked for your own records only")
        return items(page)

    return checked


@click.group()
def records() -> None:
    """What was asked of upstreams, and what it took.

    An administrator sees everybody's; with --mine a user sees its own, also one who is an administrator.
    """


@records.command()
@_filters(*_SESSION_FILTERS)
@_limit
@administers()
def sessions(destination: Destination, output: Output, wanted: pb.UsageFilter, mine: bool, limit: int) -> None:
    """Conversations, the latest first."""
    request = pb.ListSessionsRequest(filter=wanted, page_size=min(limit, 250))
    with destination.connect(mine=mine) as connection:
        found = connection.pages(connection.usage.ListSessions, request, _asked_for(mine, lambda page: page.sessions))
        rows = map(to_dict, islice(found, limit))
        lines = rows if output.as_json else map(_shortened, map(_without_zeros, map(_in_words, rows)))
        output.listing(lines, SESSION_COLUMNS)


@records.command()
@_filters(*_SESSION_FILTERS)
@_limit
@administers()
def interceptions(destination: Destination, output: Output, wanted: pb.UsageFilter, mine: bool, limit: int) -> None:
    """Single requests, the latest first."""
    request = pb.ListInterceptionsRequest(filter=wanted, page_size=min(limit, 250))
    with destination.connect(mine=mine) as connection:
        found = connection.pages(
            connection.usage.ListInterceptions, request, _asked_for(mine, lambda page: page.interceptions)
        )
        rows = map(to_dict, islice(found, limit))
        output.listing(rows if output.as_json else map(_without_zeros, map(_in_words, rows)), INTERCEPTION_COLUMNS)


@records.command()
@click.argument("interception")
@click.option("--mine", is_flag=True, help="With the token of CREDENTIALD_TOKEN.")
@administers()
def show(destination: Destination, output: Output, interception: str, mine: bool) -> None:
    """One request with its thread: prompts, thoughts, calls of tools, tokens.

    INTERCEPTION is the id that every answer of the bridge has in X-Interception-Id.
    """
    with destination.connect(mine=mine) as connection:
        found = connection.call(connection.usage.GetInterception, pb.GetInterceptionRequest(id=interception))
    output.account(found, _echo_thread)


@records.command()
@click.option(
    "--by",
    "group_by",
    default="day",
    show_default=True,
    metavar="LIST",
    help="Any of day, user, provider, model, client, with commas.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@_filters()
@administers()
def usage(
    destination: Destination, output: Output, wanted: pb.UsageFilter, mine: bool, group_by: str, as_csv: bool
) -> None:
    """Sums of requests, tokens and cost. Days are whole days in UTC.

    UPSTREAM CALLS are those that reported tokens. COST USD is that of calls whose price was known;
    UNPRICED is how many were not.
    """
    if as_csv and output.as_json:
        raise click.UsageError("--csv and --json exclude each other")
    names = [name.strip() for name in group_by.split(",") if name.strip()]
    unknown = [name for name in names if name not in DIMENSIONS or names.count(name) > 1]
    if unknown:
        raise click.UsageError(f"--by takes each of {', '.join(DIMENSIONS)} once, not {unknown[0]!r}")
    request = pb.QueryUsageRequest(filter=wanted, group_by=[DIMENSIONS[name] for name in names], page_size=1000)
    with destination.connect(mine=mine) as connection:
        rows = [
            to_dict(row)
            for row in connection.pages(connection.usage.QueryUsage, request, _asked_for(mine, lambda page: page.rows))
        ]
    if "user" in names[1:]:
        # They come in the order of users first.
        rows.sort(key=lambda row: [_sort_key(row, name) for name in names])
    if output.as_json:
        echo_json(rows)
        return
    lines = [_usage_line(names, row) for row in rows]
    if as_csv:
        _write_csv(lines, names)
    else:
        heads = [name.upper().replace("_", " ") for name in _usage_heads(names)]
        echo_columns([heads, *([cell or "-" for cell in line] for line in lines)])


def _sort_key(row: Mapping[str, Any], name: str) -> str:
    return str(row["username"] or row["user_id"] if name == "user" else row[name])


def _usage_heads(names: Sequence[str]) -> list[str]:
    counts = ["input", "output", "cache_read", "cache_write"]
    return [*names, "requests", "upstream_calls", *counts, "cost_usd", "unpriced"]


def _usage_line(names: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    shown = {**row, "user": row["username"] or row["user_id"]}
    tokens = row["tokens"] or {}
    counts = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    return [
        *(text_of(shown[name]) for name in names),
        text_of(row["interceptions"]),
        text_of(row["token_usages"]),
        *(text_of(tokens.get(one, 0)) for one in counts),
        *_costs(row),
    ]


def _costs(row: Mapping[str, Any]) -> tuple[str, str]:
    """Cost and how many are unpriced. Where all are, there is no cost to tell, not even of nothing."""
    cost = row["cost"] or {"cost_micros": 0, "unpriced_token_usages": 0}
    unpriced = cost["unpriced_token_usages"]
    is_known = not unpriced or unpriced < row["token_usages"]
    return written_usd(cost["cost_micros"]) if is_known else "", str(unpriced)


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its cost as `0.075`, `unpriced 2`, or both, and a user who was deleted by id."""
    cost = row["cost"] or {"cost_micros": 0, "unpriced_token_usages": 0}
    micros, unpriced = cost["cost_micros"], cost["unpriced_token_usages"]
    known = [written_usd(micros)] if micros or not unpriced else []
    cost_words = " + ".join([*known, f"unpriced {unpriced}"] if unpriced else known)
    return row | {"cost": cost_words, "username": row["username"] or row["user_id"]}


def _without_zeros(row: dict[str, Any]) -> dict[str, Any]:
    """Nothing where nothing was told: what has no status, or is without any token, has not cost 0."""
    shown = row | {"http_status": row.get("http_status") or None}
    if not any((row["tokens"] or {}).values()) and row["cost"] == "0":
        shown |= {"tokens": None, "cost": None}
    return shown


def _write_csv(lines: Iterable[Sequence[str]], names: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_usage_heads(names))
    writer.writerows([_harmless(cell) for cell in line] for line in lines)


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: names of models and clients come from clients."""
    return f"'{cell}" if cell[:1] in ("=", "+", "@", "\t") or (cell[:1] == "-" and len(cell) > 1) else cell


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    prompt = " ".join(row["last_prompt"].split())
    long = len(prompt) > _PROMPT_CHARACTERS
    return row | {"last_prompt": f"{prompt[:_PROMPT_CHARACTERS]}…" if long else prompt}


def _echo_thread(found: Mapping[str, Any]) -> None:
    asked = found["interception"] or {}
    for detail in found["thread"]:
        one = detail["interception"]
        mark = ">" if one["id"] == asked.get("id") else " "
        heads = (one["start_time"], one["id"], one["provider"], one["model"], one["outcome"] or "open")
        mapped = f" as {text_of(one['upstream_model'])}" if one["upstream_model"] not in ("", one["model"]) else ""
        *before, outcome = map(text_of, heads)
        click.echo(f"{mark} {'  '.join(before)}{mapped}  {outcome}")
        if one["error_category"] or one["error_reason"]:
            trouble = (one["error_category"], one["error_reason"], one["error_message"])
            click.echo(f"    error: {'  '.join(map(text_of, trouble))}")
        for attempt in detail["attempts"]:
            click.echo(f"    {'  '.join(_about_attempt(attempt))}")
        click.echo(f"    {'  '.join(_about(one))}")
        for prompt in detail["prompts"]:
            _echo_text("prompt", prompt["text"], prompt["text_bytes"])
        for thought in detail["model_thoughts"]:
            kind = f"{thought['source'] or 'thought'}{_partial(thought)}"
            _echo_text(kind, thought["content"], thought["content_bytes"])
        for call in detail["tool_calls"]:
            _echo_text(f"tool {call['tool']}{_partial(call)}", call["input"], call["input_bytes"])
        for tokens in detail["token_usages"]:
            kinds = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
            counts = ", ".join(f"{tokens[kind]} {kind.removesuffix('_tokens')}" for kind in kinds)
            further = ", ".join(f"{count} {text_of(kind)}" for kind, count in tokens["metadata"].items() if count)
            details = f"; details: {further}" if further else ""
            cost = "unpriced" if tokens["cost_micros"] is None else f"{written_usd(tokens['cost_micros'])} USD"
            click.echo(f"    tokens: {counts}{_partial(tokens)}{details}; cost: {cost}")
        if detail["records_left_out"]:
            click.echo(f"    {_left_out(one['id'], is_asked=one['id'] == asked.get('id'))}")


def _partial(record: Mapping[str, Any]) -> str:
    return " (partial)" if record["partial"] else ""


def _left_out(interception: str, *, is_asked: bool) -> str:
    if is_asked:
        return "left out: further records, for which an answer has no room"
    return f"left out: its records, for which there is no room here: 'records show {text_of(interception)}' has them"


def _about(one: Mapping[str, Any]) -> Iterator[str]:
    """Who asked with what, and how it went: `ann  Codex  CENTRAL_KEY  key 0190…  status 200  2.564 s, first byte …`."""
    client = one["client"]
    if client == _UNKNOWN_CLIENT and one["user_agent"]:
        client = f"{client} ({one['user_agent'][:_AGENT_CHARACTERS]})"
    yield from (text_of(told) for told in (one["username"] or one["user_id"], client, one["source"]) if told)
    if one["credential_id"]:
        yield f"key {text_of(one['credential_id'])}"
    if one["http_status"]:
        yield f"status {one['http_status']}"
    if one["outcome"] and one["duration_micros"]:
        first = one["first_byte_micros"]
        wait = "" if first is None else f", first byte {first / 1e6:.3f} s"
        yield f"{one['duration_micros'] / 1e6:.3f} s{wait}"
    yield f"session {text_of(one['session_id'])}"
    if one["upstream_request_id"]:
        yield f"upstream's id {text_of(one['upstream_request_id'])}"


def _about_attempt(one: Mapping[str, Any]) -> Iterator[str]:
    """With which key, and why there was another call: `attempt  corp  key 0190…  status 429  RATE_LIMITED …`."""
    yield from ("attempt", text_of(one["provider"]), f"key {text_of(one['credential_id'])}")
    if one["http_status"]:
        yield f"status {one['http_status']}"
    yield from (text_of(one[name]) for name in ("error_category", "error_reason") if one[name])
    yield f"{one['duration_micros'] / 1e6:.3f} s"
    if one["upstream_request_id"]:
        yield f"upstream's id {text_of(one['upstream_request_id'])}"


def _echo_text(kind: str, text: str, whole_bytes: int) -> None:
    kept = len(text.encode())
    cut = "" if kept == whole_bytes else f" [{kept} of {whole_bytes} bytes kept]"
    lines = text.splitlines() or [""]
    only = f"{printable(lines[0])}{cut if len(lines) == 1 else ''}"
    click.echo(f"    {printable(kind)}: {only.lstrip() if not lines[0] else only}")
    for place, line in enumerate(lines[1:], 2):
        click.echo(f"      {printable(line)}{cut if place == len(lines) else ''}")
