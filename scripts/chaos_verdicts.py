"""What scripts/chaos says in the end, promise by promise. Facts in, verdicts out; nothing here does I/O."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from chaos_clients import Outcome
from chaos_schedule import Window, excused

# Trouble of ours, with which a client is to come again.
TROUBLE = frozenset({"CREDENTIALD_UNREACHABLE", "STORE_UNAVAILABLE", "SEALED", "AUDIT_UNAVAILABLE", "CAPACITY"})
# The lanes whose upstreams and links are good, so that a bad answer is the pair's own.
JUDGED = ("json", "stream")
# Those whose token or provider is taken away on purpose.
MAY_BE_REFUSED = frozenset({"revoked", "after a revocation", "explained"})
RECOVERY_SECONDS = 15.0
# A request may begin just before a fault, and the pair's own looks take a moment after it.
SLACK_SECONDS = 1.5
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One promise. `problems` empty: it held for what was checked. `checked` empty: nothing of it was."""

    promise: str
    checked: str
    problems: Sequence[str] = ()

    @property
    def violated(self) -> bool:
        return bool(self.problems)

    def __str__(self) -> str:
        word = "VIOLATED" if self.problems else "held" if self.checked else "–"
        lines = [f"{self.promise:4}{word:9}{self.checked or 'not checked here'}"]
        lines += [f"{'':13}{one}" for one in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"{'':13}and {len(self.problems) - _SHOWN} more")
        return "\n".join(lines)


@dataclass(kw_only=True)
class Facts:
    """What was seen."""

    windows: Sequence[Window]
    counts: Mapping[tuple[str, str], int]
    bad: Sequence[Outcome]
    # Secrets, and named texts and bytes that must have none of them.
    secrets: Iterable[str]
    places: Iterable[tuple[str, bytes]]
    # By path at an upstream: what was carried, and what may be.
    carried: Mapping[tuple[str, str], int]
    allowed: Mapping[str, frozenset[str]]
    revoked: int
    confirmed: int
    changed_keys: int
    after: int
    administration: Sequence[str]
    explained: Sequence[tuple[str, bool, bool]]
    unreconciled: Sequence[str]
    reconciled: str
    kept: str
    not_kept: Sequence[str]
    tampered: Sequence[str] | None
    rotations: Sequence[str] = ()
    rotation_problems: Sequence[str] = ()
    # Numbers of requests whose connection broke with a bridge that was not killed.
    dropped: Sequence[str] = ()
    drained: int = 0
    begun_streams: int = 0
    noise: int = 0
    garbage: int = 0
    hung: Sequence[str] = ()
    died: Sequence[str] = ()
    tracebacks: Sequence[str] = ()
    tls_problems: Sequence[str] = ()
    peak_mib: Mapping[str, float] = field(default_factory=dict)
    bound_mib: float = 0.0
    longest_seconds: float = 0.0
    deadline_seconds: float = 0.0

    def total(self) -> int:
        return sum(self.counts.values())


def verdicts(facts: Facts) -> list[Verdict]:
    """All eleven, in order."""
    return [
        _secrets(facts), _destinations(facts), _revocation(facts), _policy(facts), _trouble(facts), _records(facts),
        Verdict(
            promise="G7",
            checked="" if facts.tampered is None else "a bit of a stored key flipped at the end",
            problems=facts.tampered or (),
        ),
        Verdict(
            promise="G8",
            checked=f"{len(facts.rotations)} rotations under all this" if facts.rotations else "",
            problems=facts.rotation_problems,
        ),
        _stopping(facts), _bytes(facts), _memory(facts),
    ]  # fmt: skip


def forms_of(secret: str) -> set[bytes]:
    """A secret raw, in hex, URL-encoded, and in base64 wherever it begins in what was encoded."""
    raw = secret.encode()
    forms = {raw, raw.hex().encode(), quote(secret, safe="").encode()}
    for before in range(3):
        inner = base64.b64encode(b"\0" * before + raw)
        # The first and last characters depend on what stands beside it.
        forms.add(inner[4 if before else 0 : -4])
    return forms


def _secrets(facts: Facts) -> Verdict:
    forms = {form: secret for secret in facts.secrets for form in forms_of(secret)}
    searched, searched_bytes, problems = 0, 0, list[str]()
    for name, data in facts.places:
        searched, searched_bytes = searched + 1, searched_bytes + len(data)
        problems += [f"{name} has {secret[:12]}… in it" for form, secret in forms.items() if form in data]
    checked = (
        f"{len(set(forms.values()))} secrets in 6 forms, searched in {searched} places, {searched_bytes >> 20} MiB"
    )
    return Verdict(promise="G1", checked=checked if searched and forms else "", problems=problems)


def _destinations(facts: Facts) -> Verdict:
    problems = [
        f"{path or 'an upstream'} was called {count} times with {key[:12]}…, which is not its own"
        for (path, key), count in facts.carried.items()
        if key not in facts.allowed.get(path, frozenset())
    ]
    calls = sum(facts.carried.values())
    checked = f"{calls} calls at {len({path for path, _ in facts.carried})} destinations"
    return Verdict(promise="G2", checked=checked if calls else "", problems=problems)


def _revocation(facts: Facts) -> Verdict:
    checked = (
        f"{facts.revoked} tokens revoked ({facts.confirmed} confirmed by all bridges), {facts.changed_keys} keys "
        f"changed; {facts.after} requests with what was gone"
    )
    return Verdict(promise="G3", checked=checked if facts.after else "", problems=facts.administration)


def _policy(facts: Facts) -> Verdict:
    problems = [
        f"{provider}: explain says {'yes' if said else 'no'}, the bridge {'yes' if done else 'no'}"
        for provider, said, done in facts.explained
        if said != done
    ]
    checked = f"{len(facts.explained)} decisions, explained and made"
    # Where all are alike, nothing was decided: the pair was in trouble, or everybody may do everything.
    return Verdict(
        promise="G4", checked=checked if len({said for _, said, _ in facts.explained}) > 1 else "", problems=problems
    )


def _trouble(facts: Facts) -> Verdict:
    problems, during, judged = [], 0, 0
    for one in facts.bad:
        if one.status in (401, 403) and one.lane not in MAY_BE_REFUSED:
            problems.append(f"{one}: a valid token was refused")
        elif one.status == 503 and one.reason in TROUBLE and not one.retry_after:
            problems.append(f"{one}: without Retry-After")
        elif one.lane in JUDGED:
            judged += 1
            if not excused(one.began, one.ended, facts.windows, slack_seconds=SLACK_SECONDS):
                problems.append(f"{one}: without a fault")
            elif one.status and not (one.status == 503 and one.reason in TROUBLE):
                problems.append(f"{one}: not 503 of ours")
            else:
                during += one.status == 503
    slow = [one for one in facts.windows if one.recovered is None or (one.recovery_seconds() or 0) > RECOVERY_SECONDS]
    problems += [f"not well again {RECOVERY_SECONDS:.0f} s after {one.fault} ({one.detail})" for one in slow]
    requests = sum(count for (lane, _), count in facts.counts.items() if lane in JUDGED)
    checked = f"{requests} requests beside {len(facts.windows)} faults: {during} times 503 with Retry-After"
    return Verdict(promise="G5", checked=checked if requests and facts.windows else "", problems=problems)


def _records(facts: Facts) -> Verdict:
    return Verdict(
        promise="G6", checked=f"{facts.reconciled}; {facts.kept}", problems=[*facts.unreconciled, *facts.not_kept]
    )


def _stopping(facts: Facts) -> Verdict:
    kills = Counter(one.fault for one in facts.windows)
    checked = (
        f"{facts.begun_streams} answers under way beside {kills['kill-credentiald'] + kills['stop-credentiald']} "
        f"ends and stops of credentiald, {facts.drained} bridges drained"
    )
    ends = kills["kill-credentiald"] + kills["stop-credentiald"] + facts.drained
    return Verdict(promise="G9", checked=checked if facts.begun_streams and ends else "", problems=facts.dropped)


def _bytes(facts: Facts) -> Verdict:
    problems = [
        *(f"was not ended: {one}" for one in facts.hung), *facts.died, *facts.tracebacks, *facts.tls_problems,
        *(str(one) for one in facts.bad if one.status == -1 or one.status == 500),
    ]  # fmt: skip
    checked = f"{facts.noise} inputs of noise, {facts.garbage} answers of garbage, {facts.total()} requests in all"
    return Verdict(promise="G10", checked=checked if facts.noise or facts.garbage else "", problems=problems)


def _memory(facts: Facts) -> Verdict:
    problems = [
        f"{name} took {mib:.0f} MiB, more than {facts.bound_mib:.0f}"
        for name, mib in facts.peak_mib.items()
        if mib > facts.bound_mib
    ]
    if facts.longest_seconds > facts.deadline_seconds:
        problems.append(f"a request took {facts.longest_seconds:.0f} s")
    peaks = ", ".join(f"{name} {mib:.0f} MiB" for name, mib in sorted(facts.peak_mib.items()))
    checked = f"peaks {peaks}; longest request {facts.longest_seconds:.1f} s"
    return Verdict(promise="G11", checked=checked if facts.peak_mib else "", problems=problems)


def conclusion(found: Sequence[Verdict], seed: int) -> str:
    """The last line. What was not checked is not said to hold."""
    violated = [one.promise for one in found if one.violated]
    unchecked = [one.promise for one in found if not one.violated and not one.checked]
    if violated:
        return f"violated: {', '.join(violated)}; seed {seed}"
    return f"what was checked held; not checked: {', '.join(unchecked)}" if unchecked else "all promises held"
