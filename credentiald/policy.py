"""Which source supplies the credential of a request. Decisions only: no reads, no writes, no clock.

    central   user keys   fallback   user has key   central key stored   plain type            bedrock
    on        off         any        any            yes                  CENTRAL_KEY           CENTRAL_KEY
    on        off         any        any            no                   CENTRAL_KEY_MISSING   AMBIENT
    off       on          any        yes            any                  USER_KEY              USER_KEY
    off       on          any        no             any                  USER_KEY_REQUIRED     USER_KEY_REQUIRED
    on        on          any        yes            any                  USER_KEY              USER_KEY
    on        on          off        no             any                  USER_KEY_REQUIRED     USER_KEY_REQUIRED
    on        on          on         no             yes                  CENTRAL_KEY           CENTRAL_KEY
    on        on          on         no             no                   USER_KEY_REQUIRED     AMBIENT
    off       off         any        any            any                  CENTRAL_KEY_MISSING   CENTRAL_KEY_MISSING

The last row cannot be saved; it must not hand out a key all the same. Resolve, Explain, the statuses of user keys
and whatever else wants to know ask this module; there is no second place that decides. Tests read the table above.
"""

import itertools
from dataclasses import dataclass

from credentiald.errors import CentralKeyMissing, Refusal, UserKeyRequired, UserKeysNotAllowed
from credentiald.model import KeyPolicy, Source

Outcome = Source | type[Refusal]

ON = YES = (True,)
OFF = NO = (False,)
ANY = (True, False)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the published table. Each condition is the set of values that it admits."""

    central_key: tuple[bool, ...]
    user_keys: tuple[bool, ...]
    fallback: tuple[bool, ...]
    user_has_key: tuple[bool, ...]
    central_key_stored: tuple[bool, ...]
    plain: Outcome
    bedrock: Outcome

    @property
    def conditions(self) -> tuple[tuple[bool, ...], ...]:
        """The five conditions in the order of the table."""
        return (self.central_key, self.user_keys, self.fallback, self.user_has_key, self.central_key_stored)

    def result(self, *, ambient_allowed: bool) -> Outcome:
        """What this row says for the kind of provider."""
        return self.bedrock if ambient_allowed else self.plain


_CENTRAL, _USER, _AMBIENT = Source.CENTRAL_KEY, Source.USER_KEY, Source.AMBIENT

TABLE: tuple[Row, ...] = (
    Row(ON, OFF, ANY, ANY, YES, _CENTRAL, _CENTRAL),
    Row(ON, OFF, ANY, ANY, NO, CentralKeyMissing, _AMBIENT),
    Row(OFF, ON, ANY, YES, ANY, _USER, _USER),
    Row(OFF, ON, ANY, NO, ANY, UserKeyRequired, UserKeyRequired),
    Row(ON, ON, ANY, YES, ANY, _USER, _USER),
    Row(ON, ON, OFF, NO, ANY, UserKeyRequired, UserKeyRequired),
    Row(ON, ON, ON, NO, YES, _CENTRAL, _CENTRAL),
    Row(ON, ON, ON, NO, NO, UserKeyRequired, _AMBIENT),
    Row(OFF, OFF, ANY, ANY, ANY, CentralKeyMissing, CentralKeyMissing),
)

# Every combination with its row, so that a decision is one look-up.
_ROW_OF: dict[tuple[bool, ...], Row] = {
    combination: row for row in TABLE for combination in itertools.product(*row.conditions)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that the decision looks at.

    `ambient_allowed` is a fact of the provider's wire type (only bedrock). `presented_key`: the request itself
    carries the user's own key. `byok_allowed` is the deployment's switch for such keys. Keys of nothing but
    spaces count as none, so they are not in `user_has_key` and `central_key_stored`.
    """

    policy: KeyPolicy
    ambient_allowed: bool
    user_has_key: bool
    central_key_stored: bool
    presented_key: bool = False
    byok_allowed: bool = True


def row_of(inputs: Inputs) -> Row:
    """The row of the table that applies when no key is presented."""
    policy = inputs.policy
    return _ROW_OF[
        policy.central_key_enabled,
        policy.user_keys_allowed,
        policy.central_key_fallback,
        inputs.user_has_key,
        inputs.central_key_stored,
    ]


def choose_source(inputs: Inputs) -> Outcome:
    """The source of the credential, or the refusal to raise.

    A presented key counts as the user's key and wins over a stored one; where user keys are off or the deployment
    forbids presented ones it is refused, never dropped in silence.
    """
    if inputs.presented_key:
        allowed = inputs.policy.user_keys_allowed and inputs.byok_allowed
        return Source.PRESENTED_KEY if allowed else UserKeysNotAllowed
    return row_of(inputs).result(ambient_allowed=inputs.ambient_allowed)


def is_valid(policy: KeyPolicy) -> bool:
    """Whether a policy may be saved: it needs at least one source."""
    return policy.central_key_enabled or policy.user_keys_allowed
