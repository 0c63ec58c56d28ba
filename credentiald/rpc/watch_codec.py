"""What watchers are told, as messages: changes, and providers without anything that is secret."""

from collections.abc import Sequence
from dataclasses import dataclass

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from credentiald.model import Provider
from credentiald.rpc.times import timestamp
from credentiald.store.revision import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened up to a revision, with the providers that it is about as they are now.

    With `snapshot` they are all that there are. `changes_missing`: what happened before is not among `changes`.
    """

    revision: int
    changes: Sequence[Change] = ()
    providers: Sequence[Provider] = ()
    snapshot: bool = False
    changes_missing: bool = False

    @property
    def is_about_services(self) -> bool:
        """Whether who watches may have to be authenticated anew."""
        return any(change.resource == "service" for change in self.changes)


def message(news: News, database_id: str) -> bytes:
    """The message, serialised: it is the same for all who watch."""
    return pb.WatchProvidersResponse(
        database_id=database_id,
        revision=news.revision,
        changes=[
            pb.AdministrativeChange(
                revision=change.revision,
                change_time=timestamp(change.change_time),
                kind=change.kind,
                resource_id=change.resource_id,
            )
            for change in news.changes
        ],
        providers=[_provider(one) for one in news.providers],
        snapshot=news.snapshot,
        changes_missing=news.changes_missing,
    ).SerializeToString()


def _provider(value: Provider) -> provider_pb2.Provider:
    policy = value.policy
    return provider_pb2.Provider(
        id=value.id,
        name=value.name,
        type=value.type,
        enabled=value.enabled,
        key_policy=provider_pb2.KeyPolicy(
            central_key_enabled=policy.central_key_enabled,
            user_keys_allowed=policy.user_keys_allowed,
            central_key_fallback=policy.central_key_fallback,
        ),
        central_keys=[provider_pb2.CentralKey(credential_id=key.credential_id) for key in value.central_keys],
    )
