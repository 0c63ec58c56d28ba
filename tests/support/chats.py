"""The plainest request there is, a turn of a chat, for tests of what becomes of one."""

from tests.support.http import Answer, send
from tests.support.pair import CENTRAL_KEY, Pair

PROVIDERS = {
    "openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/v1"},
    "anthropic": {"TYPE": "anthropic", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
    "google": {"TYPE": "google", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
}
CHAT = "/openai/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'


async def chat(pair: Pair, token: str | None = None) -> Answer:
    """What the pair's user gets, or whoever has this token."""
    headers = {"Authorization": f"Bearer {pair.token if token is None else token}"}
    return await send(pair.bridged.addresses["http"], "POST", CHAT, headers, BODY)
