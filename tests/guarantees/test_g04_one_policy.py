"""Every row of the key policy at the bridge: HTTP status, body shape, X-Drawbridge-Error, and the key that arrives.

credentiald is served in the test's own process, because some rows can only be written below its API; the bridge is a
real process that asks it over a unix socket.
"""

import asyncio
import json

from tests.fakes.scripted_upstream import reply, running_upstream
from tests.support.credentiald import running
from tests.support.http import send
from tests.support.pair import until_ready
from tests.support.policy_rows import CENTRAL, COMBINATIONS, OWN, expected_of, write_row
from tests.support.processes import bridged

# What each reason is to a client (contract.md), and to Anthropic's documented error types.
STATUS = {"USER_KEY_REQUIRED": 403, "CENTRAL_KEY_MISSING": 503, "USER_KEYS_NOT_ALLOWED": 403}
ANTHROPIC_TYPES = {403: "permission_error", 503: "api_error"}
DIALECTS = {
    "openai": ("/v1/chat/completions", "Authorization", "authorization", "Bearer "),
    "anthropic": ("/v1/messages", "X-Api-Key", "x-api-key", ""),
}
BODY = b'{"model":"m","messages":[]}'


async def test_every_row_for_a_plain_type_in_two_dialects(tmp_path):
    async with running_upstream() as upstream, running(tmp_path) as one:
        upstream.default = reply(200, b'{"answer":true}')
        user_id, token = await one.make_user("ann")
        target = f"unix:{tmp_path / 'main.sock'}"
        bridge = bridged(tmp_path, target)
        daemon = await asyncio.to_thread(bridge.__enter__)
        try:
            await until_ready(daemon)
            for type_name, (path, client_header, upstream_header, scheme) in DIALECTS.items():
                for combination in COMBINATIONS:
                    name = await write_row(one, type_name, combination, user_id, base_url=f"{upstream.url}/{type_name}")
                    expected = expected_of(type_name, combination)
                    answer = await send(
                        daemon.addresses["http"], "POST", f"/api/v2/aibridge/{name}{path}",
                        {client_header: scheme + token}, BODY,
                    )  # fmt: skip
                    where = f"{type_name} {combination} {answer.body!r}"
                    assert answer.header("X-Interception-Id"), where
                    if expected in STATUS:
                        assert not upstream.requests, where
                        _check_refusal(type_name, answer, expected, where)
                        continue
                    assert (answer.status, answer.body) == (200, b'{"answer":true}'), where
                    assert answer.header("X-Drawbridge-Error") == ""
                    key = {"CENTRAL_KEY": CENTRAL, "USER_KEY": OWN}[expected]
                    request = upstream.requests.pop()
                    assert request.header(upstream_header) == scheme + key, where
                    assert request.body == BODY
                    assert token.encode() not in request.raw_head
        finally:
            await asyncio.to_thread(bridge.__exit__, None, None, None)
        for secret in (CENTRAL, OWN, token):
            assert secret not in daemon.output


def _check_refusal(type_name, answer, reason, where):
    assert answer.status == STATUS[reason], where
    assert answer.header("X-Drawbridge-Error") == reason, where
    error = json.loads(answer.body)["error"]
    assert error["message"]
    if type_name == "openai":
        assert error["code"] == reason.lower(), where
    else:
        assert json.loads(answer.body)["type"] == "error"
        assert error["type"] == ANTHROPIC_TYPES[answer.status], where
