"""G2: a credential goes only to the host stored with its provider.

Proved through a real pair with two providers and two upstreams, each with a key of its own. Whatever a client puts
into target, Host, X-Forwarded-* and the like, whatever base URL is saved or told to a bridge, whatever an upstream
answers: the key of the one never reaches the other, nor anywhere but below its own base URL. The requests are
Hypothesis's, put together from everything that somebody has ever taken for a host. Nor does a key go to an address
where no upstream may be, whoever says so.

Wider: tests/core/bridged (paths, destinations), tests/daemons/pair/test_hostile_requests.py (what is answered),
tests/core/test_reachable.py and tests/daemons/bridged/http1/upstream/test_upstream_egress.py (addresses, names).
"""

import asyncio
import itertools
import json
import posixpath
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.credentiald import SERVICE_TOKEN, USER_TOKEN, FakeCredentiald, provider, running_credentiald
from tests.fakes.scripted_upstream import ScriptedUpstream, raw, reply, running_upstream
from tests.support.http import send
from tests.support.pair import Pair, running_pair, until_ready
from tests.support.processes import bridged, command
from tests.support.rpc import rpcs

ONE_KEY, TWO_KEY, PRESENTED = "sk-canary-of-one-5a1c", "sk-canary-of-two-77e0", "sk-canary-presented-0d42"
KEYS = {"one": ONE_KEY, "two": TWO_KEY}
BODY = b'{"model":"m","messages":[]}'
DEADLINE_SECONDS = 10
# What an upstream, or a proxy before it, might take for another place.
ENDING_HERE = {
    "forwarded",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "via",
    "upgrade",
    "proxy-authorization",
}


def as_some_read_it(target: str) -> str:
    """The path where a server decodes twice, takes backslashes for slashes and cuts parameters."""
    path = unquote(unquote(target.partition("?")[0])).replace("\\", "/")
    return posixpath.normpath("/".join(segment.partition(";")[0] for segment in path.split("/")))


@dataclass
class Scene:
    """The pair with a provider for each of two upstreams, below the path /base/v1 of each."""

    pair: Pair
    upstreams: dict[str, ScriptedUpstream]

    @property
    def hosts(self) -> dict[str, str]:
        return {name: one.url.removeprefix("http://") for name, one in self.upstreams.items()}

    def forget(self) -> None:
        for upstream in self.upstreams.values():
            upstream.requests.clear()

    def check(self, where: object) -> int:
        """Each upstream has got nothing but its own key, and only where its base URL says; how many requests came."""
        for name, upstream in self.upstreams.items():
            others = [key for owner, key in KEYS.items() if owner != name]
            for request in upstream.requests:
                for key in (*others, self.pair.token):
                    assert key.encode() not in request.raw_head + request.body, where
                assert request.header("host") == self.hosts[name], where
                assert as_some_read_it(request.target).startswith("/base/v1/"), where
                said = {header.lower().replace("_", "-") for header, _ in request.headers}
                assert not [one for one in said if one in ENDING_HERE or one.startswith("x-forwarded-")], where
                assert request.header("authorization") in (f"Bearer {KEYS[name]}", f"Bearer {PRESENTED}"), where
        return sum(len(upstream.requests) for upstream in self.upstreams.values())

    async def sent(self, data: bytes) -> bytes:
        """All that comes back for these bytes."""
        host, _, port = self.pair.bridged.addresses["http"].rpartition(":")
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(data)
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.transport.abort()


@asynccontextmanager
async def scene(folder: Path, **extra: str) -> AsyncIterator[Scene]:
    async with running_upstream() as two:
        shared = {"TYPE": "openai", "ALLOW_USER_KEYS": "true", "CENTRAL_KEY_FALLBACK": "true", **extra}
        providers = {
            "one": {**shared, "KEY": ONE_KEY, "BASE_URL": "{upstream}/base/v1"},
            "two": {**shared, "KEY": TWO_KEY, "BASE_URL": f"{two.url}/base/v1", "FALLBACK_PROVIDER": ""},
        }
        async with running_pair(folder, providers) as pair:
            yield Scene(pair=pair, upstreams={"one": pair.upstream, "two": two})


# OTHER stands for the other provider's host and port, TOKEN for the client's token.
TARGETS = st.sampled_from(
    [
        "/one/v1/chat/completions",
        "/api/v2/aibridge/one/v1/chat/completions",
        "/one/v1/embeddings",
        "http://OTHER/one/v1/chat/completions",
        "http://OTHER/base/v1/chat/completions",
        "http://bridge@OTHER/one/v1/chat/completions",
        "http:/OTHER/one/v1/chat/completions",
        "OTHER",
        "//OTHER/one/v1/chat/completions",
        "///OTHER/one/v1/chat/completions",
        "/one//OTHER/v1/chat/completions",
        "/one@OTHER/v1/chat/completions",
        "/one/@OTHER/v1/chat/completions",
        "/one/v1@OTHER/chat/completions",
        "/one/v1/chat/completions@OTHER",
        "/one/v1/chat/completions#@OTHER",
        "/one/v1/chat/completions?@OTHER/",
        "/one/v1/chat/completions?x=#@OTHER",
        "/one/v1/models/http://OTHER/",
        "/one/v1/models/http:%2f%2fOTHER%2f",
        "/one/v1/models/%2f%2fOTHER",
        "/one/v1/models/..%2f..%2f..%2f@OTHER",
        "/one/v1/models/x:y@OTHER",
        "/one/v1/../../two/v1/chat/completions",
        "/one/v1/%2e%2e/%2e%2e/two/v1/chat/completions",
        "/one/v1/..\\..\\two/v1/chat/completions",
        "/one/v1/models/..;/..;/x",
        "/one%2f..%2ftwo/v1/chat/completions",
        "/two/../one/v1/chat/completions",
        "\\\\OTHER\\one/v1/chat/completions",
        "/\\OTHER/one/v1/chat/completions",
        "/one/v1/chat/completions\tHTTP/1.1\tOTHER",
        "/one/v1/responses/a%0d%0aHost:%20OTHER",
    ]
)
HOSTS = st.sampled_from(
    ["bridge", "OTHER", "one@OTHER", "OTHER#", "OTHER/", "bridge, OTHER", "bridge\r\nHost: OTHER", "", "OTHER:OTHER"]
)
NAMES = st.sampled_from(
    [
        "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
        "X-Forwarded-For", "X_Forwarded_Host", "Forwarded", "X-Original-Host", "X-Original-URL", "X-Rewrite-URL",
        "X-Host", "X-HTTP-Host-Override", "Host ", "host", "Proxy-Authorization", "Via", "Destination", "Location",
        "Content-Location", "Base-URL", "X-Upstream", "X-Backend-Server", "Referer", "Origin", "Upgrade", "Connection",
        "HTTP2-Settings", "Alt-Used", ":authority", "X-Coder-AI-Governance-Host", "X-Drawbridge-Upstream",
    ]
)  # fmt: skip
VALUES = st.sampled_from(
    [
        "OTHER",
        "http://OTHER/",
        "https://OTHER",
        "host=OTHER",
        "//OTHER",
        "/two/v1/models",
        "for=x;host=OTHER",
        "authorization",
    ]
)
METHODS = st.sampled_from(["POST", "POST", "POST", "GET", "CONNECT", "OPTIONS"])


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A request for provider `one`, that some reader or other might take for one to somebody else."""
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    own = draw(st.booleans())
    lines = [f"{draw(METHODS)} {draw(TARGETS)} HTTP/1.1", f"Host: {draw(HOSTS)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if own:
        lines += ["X-Coder-AI-Governance-Token: TOKEN", f"Authorization: Bearer {PRESENTED}"]
    else:
        lines += ["Authorization: Bearer TOKEN"]
    lines += [f"Content-Length: {len(BODY)}", "Connection: close"]
    return "\r\n".join(lines) + "\r\n\r\n"


def test_no_request_leads_a_key_to_another_host(tmp_path):
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        at = runner.run(stack.enter_async_context(scene(tmp_path)))
        came = 0

        @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(requests())
        def holds(text: str) -> None:
            nonlocal came
            other, token = at.hosts["two"], at.pair.token
            data = text.replace("OTHER", other).replace("TOKEN", token).encode("latin-1") + BODY
            at.forget()
            got = runner.run(at.sent(data))
            came += at.check(text)
            assert not at.upstreams["two"].requests, text
            assert ONE_KEY.encode() not in got, text
            assert got.count(b"HTTP/1.1 ") <= 1, text

        try:
            holds()
        finally:
            runner.run(stack.aclose())
        # Some of them are good requests, so the search was not for what never left.
        assert came > 10


async def test_no_path_climbs_out_of_its_base_url(tmp_path):
    paths = ["/one/v1/models/..;/..;/x", "/one/v1/models/..%2f..%2fx", "/one/v1/models/%2e%2e", "/one/v1/models/."]
    async with scene(tmp_path) as at:
        headers = {"Authorization": f"Bearer {at.pair.token}"}
        answers = [
            (await send(at.pair.bridged.addresses["http"], "GET", path, headers)).status
            for path in ("/one/v1/models/x", *paths)
        ]
        assert answers == [200, 400, 400, 400, 400]
        assert len(at.upstreams["one"].requests) == 1


async def test_each_request_has_its_own_providers_key_whoever_shares_the_connection(tmp_path):
    async with scene(tmp_path) as at:
        order = [name for pair in itertools.repeat(("one", "two"), 40) for name in pair]
        headers = {"Authorization": f"Bearer {at.pair.token}"}
        answers = await asyncio.gather(
            *(
                send(at.pair.bridged.addresses["http"], "POST", f"/{name}/v1/chat/completions", headers, BODY)
                for name in order
            )
        )
        assert {answer.status for answer in answers} == {200}
        assert at.check("many at once") == len(order)
        assert [len(one.requests) for one in at.upstreams.values()] == [40, 40]


# Nobody follows these by himself; they pass as they came.
NO_REDIRECTS = (300, 305)
REDIRECTS = [
    (status, location)
    for status in (300, 301, 302, 303, 305, 307, 308)
    for location in ("http://OTHER/base/v1/chat/completions", "//OTHER/base/v1/x", "/../x", "http://one@OTHER/")
]


async def test_no_answer_of_an_upstream_leads_a_key_elsewhere(tmp_path):
    async with scene(tmp_path) as at:
        headers = {"Authorization": f"Bearer {at.pair.token}"}
        elsewhere = [
            ("Refresh", "0;url=http://OTHER/"),
            ("Alt-Svc", 'h2="OTHER"'),
            ("Content-Location", "http://OTHER/"),
        ]
        for path in ("/one/v1/chat/completions", "/one/v1/embeddings"):
            for status, location in REDIRECTS:
                at.forget()
                pairs = [(name, value.replace("OTHER", at.hosts["two"])) for name, value in elsewhere]
                pairs.append(("Location", location.replace("OTHER", at.hosts["two"])))
                at.upstreams["one"].script(reply(status, b"{}", pairs))
                answer = await send(at.pair.bridged.addresses["http"], "POST", path, headers, BODY)
                where = f"{path} {status} {location}"
                assert at.check(where) == 1, where
                if status not in NO_REDIRECTS:
                    assert (answer.status, answer.header("Location")) == (502, ""), where
        # Informational answers and a change of protocol lead nowhere either.
        for odd in (b"HTTP/1.1 103 X\r\nLink: <http://OTHER/>; rel=preconnect\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n"):
            at.forget()
            at.upstreams["one"].script(raw(odd.replace(b"OTHER", at.hosts["two"].encode())))
            await send(at.pair.bridged.addresses["http"], "POST", "/one/v1/chat/completions", headers, BODY)
            assert at.check(odd) >= 1
            assert not at.upstreams["two"].requests


async def test_a_fallback_provider_gets_neither_the_first_ones_key_nor_the_clients(tmp_path):
    async with scene(tmp_path, FALLBACK_PROVIDER="two") as at:
        address, target = at.pair.bridged.addresses["http"], "/one/v1/chat/completions"
        at.upstreams["one"].default = reply(503, b"{}")
        for headers, at_two in (
            ({"Authorization": f"Bearer {at.pair.token}"}, 1),
            ({"X-Coder-AI-Governance-Token": at.pair.token, "Authorization": f"Bearer {PRESENTED}"}, 0),
        ):
            at.forget()
            await send(address, "POST", target, headers, BODY)
            at.check(headers)
            assert [len(one.requests) for one in at.upstreams.values()] == [1, at_two]
            assert all(PRESENTED.encode() not in request.raw_head for request in at.upstreams["two"].requests)


# RIGHT and OTHER are hosts with ports. Whoever reads one of these otherwise than its neighbour sends a key elsewhere.
BASE_URLS = [
    "http://RIGHT@OTHER/base/v1", "http://RIGHT:x@OTHER/base/v1", "http://@OTHER/base/v1", "http://OTHER#@RIGHT/base/v1",
    "http://OTHER?@RIGHT/base/v1", "http://OTHER\\@RIGHT/base/v1", "http://OTHER/#/base/v1", "http://RIGHT/base/v1#@OTHER",
    "http://RIGHT/base/v1?x=", "http://RIGHT\t@OTHER/base/v1", "http:///OTHER/base/v1", "http:OTHER/base/v1",
    "//OTHER/base/v1", "ftp://OTHER/base/v1", "file://OTHER/base/v1", "http://OTHER:0/base/v1", "http://[OTHER]/base/v1",
    "http://RIGHT\r\nHost: OTHER/base/v1", "http://RIGHT, OTHER/base/v1", "http://RIGHT%2f@OTHER/base/v1", " http://OTHER/",
    "http://OTHER%00.RIGHT/base/v1", "http://\u24d4xample.com/base/v1", "javascript://OTHER/base/v1", "RIGHT",
]  # fmt: skip


async def test_a_base_url_that_may_be_read_in_two_ways_is_not_saved(tmp_path):
    async with running_upstream() as two, running_pair(tmp_path) as pair, rpcs(tmp_path, pair.credentiald) as rpc:
        hosts = {"RIGHT": pair.upstream.url.removeprefix("http://"), "OTHER": two.url.removeprefix("http://")}
        for number, text in enumerate(BASE_URLS):
            for name, host in hosts.items():
                text = text.replace(name, host)
            words = ("providers", "create", f"p-{number}", "--type", "openai", "--base-url", text, "--key-stdin")
            if "\r" not in text and number < 3:
                done = await asyncio.to_thread(command, pair.folder, pair.credentiald, *words, key=ONE_KEY)
                assert done.returncode != 0, text
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rpc.provider(f"q-{number}", text, key=ONE_KEY)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, text
        listed = json.loads(pair.command("providers", "list", "--json"))
        assert listed == []


async def test_a_bridge_that_is_told_such_a_base_url_connects_to_nobody(tmp_path):
    async with running_upstream() as one, running_upstream() as two, running_credentiald() as plane:
        hosts = {"RIGHT": one.url.removeprefix("http://"), "OTHER": two.url.removeprefix("http://")}
        environ = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN}
        bridge = bridged(tmp_path, plane.target, environ)
        daemon = await asyncio.to_thread(bridge.__enter__)
        try:
            await until_ready(daemon)
            for text in BASE_URLS:
                for name, host in hosts.items():
                    text = text.replace(name, host)
                assert await told(plane, daemon.addresses["http"], text) >= 500, text
                assert not one.requests, text
                assert not two.requests, text
            assert await told(plane, daemon.addresses["http"], f"{one.url}/base/v1") == 200
        finally:
            await asyncio.to_thread(bridge.__exit__, None, None, None)
        assert [request.target for request in one.requests] == ["/base/v1/chat/completions"]


async def told(plane: FakeCredentiald, address: str, base_url: str) -> int:
    """The status of a client's answer where credentiald gives the bridge this base URL."""
    plane.providers["corp"] = provider("openai", base_url, name="corp", api_key=ONE_KEY)
    headers = {"Authorization": f"Bearer {USER_TOKEN}"}
    return (await send(address, "POST", "/corp/v1/chat/completions", headers, BODY)).status


async def test_no_key_goes_to_an_address_where_no_upstream_may_be_though_somebody_listens_there(tmp_path):
    async with running_upstream() as somebody, running_credentiald() as plane:
        environ = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN, "BRIDGED_PLAINTEXT_UPSTREAMS": "corp"}
        bridge = bridged(tmp_path, plane.target, environ, "--allow-upstream-networks", "private")
        daemon = await asyncio.to_thread(bridge.__enter__)
        try:
            await until_ready(daemon)
            address, found = daemon.addresses["http"], {}
            # Linux takes the unspecified address for this machine, whatever its notation.
            for host in ("0.0.0.0", "0", "[::ffff:0.0.0.0]", "0x0.0"):
                found[host] = await told(plane, address, f"http://{host}:{somebody.port}/base/v1")
            seen = list(somebody.requests)
            # Somebody would have taken it.
            assert await told(plane, address, f"http://127.0.0.1:{somebody.port}/base/v1") == 200
        finally:
            await asyncio.to_thread(bridge.__exit__, None, None, None)
    assert found == dict.fromkeys(found, 503)
    assert seen == []
