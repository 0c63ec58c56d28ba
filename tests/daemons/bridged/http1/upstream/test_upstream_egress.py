"""What is dialled is what was judged: names for several addresses, for another one a moment later, for bad ones."""

import logging

import pytest

from bridged.egress import Egress, parse_networks
from bridged.http1.pool import running_pool
from bridged.http1.proxies import parse_proxies
from bridged.http_types import UpstreamNotAllowed, UpstreamTimeout, UpstreamUnreachable
from tests.fakes.connect_proxy import running_proxy
from tests.fakes.scripted_upstream import reply, running_upstream
from tests.support.upstream_answers import Names, ask, outgoing

LIMITS = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
CLOSING = reply(headers=[("Connection", "close")])
# Where nobody answers, and where nobody may be asked. Nothing is sent there: a test that tried would wait in vain.
METADATA = "169.254.169.254"


async def test_a_name_that_stands_for_another_address_a_moment_later_gains_nothing() -> None:
    # No resolver but this one knows the name, so a second look-up by anybody would find nothing.
    names = Names({"rebind.test": [["127.0.0.1"], [METADATA], ["127.0.0.1"]]})
    async with running_upstream() as upstream, running_pool(**LIMITS, resolve_name=names) as pool:
        upstream.default = CLOSING
        answers = [await ask(pool, outgoing(upstream.port, host="rebind.test")) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 0, 200]
    assert isinstance(answers[1].error, UpstreamNotAllowed)
    assert "metadata" in str(answers[1].error)
    # Once for each connection.
    assert names.asked == ["rebind.test"] * 3
    assert len(upstream.requests) == 2


async def test_a_connection_that_stands_is_used_without_looking_the_name_up_again() -> None:
    names = Names({"rebind.test": [["127.0.0.1"], [METADATA]]})
    async with running_upstream() as upstream, running_pool(**LIMITS, resolve_name=names) as pool:
        answers = [await ask(pool, outgoing(upstream.port, host="rebind.test")) for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert names.asked == ["rebind.test"]


async def test_of_several_addresses_only_the_good_ones_are_dialled() -> None:
    found = [METADATA, "fe80::1%lo", "10.255.255.1", "::ffff:169.254.169.254", "127.0.0.1"]
    async with running_upstream() as upstream:
        limits = LIMITS | {"connect_timeout_seconds": 2}
        async with running_pool(**limits, resolve_name=Names({"mixed.test": [found]})) as pool:
            answer = await ask(pool, outgoing(upstream.port, host="mixed.test"))

    assert answer.status == 200


async def test_a_bad_address_beside_a_good_one_is_not_dialled_where_the_good_one_fails() -> None:
    # Linux takes 0.0.0.0 for this machine: somebody is there. Nobody is at the good one.
    names = Names({"mixed.test": [["0.0.0.0", "127.0.0.3"]]})
    async with running_upstream() as upstream, running_pool(**LIMITS, resolve_name=names) as pool:
        answer = await ask(pool, outgoing(upstream.port, host="mixed.test"))

    assert isinstance(answer.error, UpstreamUnreachable)
    assert upstream.requests == []


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1"])
async def test_a_host_in_another_notation_is_judged_by_what_it_stands_for(host: str) -> None:
    async with running_upstream() as upstream, running_pool(**LIMITS) as pool:
        answer = await ask(pool, outgoing(upstream.port, host=host))
    assert answer.status == 200

    async with running_pool(**LIMITS, egress=Egress(loopback=False)) as pool:
        answer = await ask(pool, outgoing(1, host=host))
    assert isinstance(answer.error, UpstreamNotAllowed)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("2852039166", "metadata"),
        ("0xa9fea9fe", "metadata"),
        ("169.254.43518", "metadata"),
        ("0", "unspecified"),
        ("10.0.0.1", "--allow-upstream-networks"),
        ("fd12::1", "--allow-upstream-networks"),
        ("8.8.8.8", "--plaintext-upstreams"),
    ],
)
async def test_what_is_not_allowed_is_said_and_not_dialled(
    host: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_pool(**LIMITS) as pool:
        answers = [await ask(pool, outgoing(9, host=host)) for _ in range(3)]

    for answer in answers:
        assert isinstance(answer.error, UpstreamNotAllowed)
        assert words in str(answer.error)
        assert host not in str(answer.error)
    # Where, is for the operator, and once.
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.host, record.port) == (host, 9)


async def test_private_addresses_are_dialled_where_their_network_is_set() -> None:
    limits = LIMITS | {"connect_timeout_seconds": 0.3}
    async with running_pool(**limits, egress=Egress(networks=parse_networks("fd12:3456::/32"))) as pool:
        answer = await ask(pool, outgoing(9, host="fd12:3456::1"), may_be_plain=True)

    # Nobody is there.
    assert isinstance(answer.error, UpstreamUnreachable | UpstreamTimeout)


async def test_providers_that_may_be_asked_in_plain_share_no_connection_with_those_that_may_not() -> None:
    async with running_upstream() as upstream, running_pool(**LIMITS) as pool:
        request = outgoing(upstream.port)
        await ask(pool, request, may_be_plain=True)
        await ask(pool, request)

    assert len({id(one.closed) for one in upstream.requests}) == 2


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"scheme": "https", "host": "169.254.169.254"}, "metadata"),
        ({"scheme": "https", "host": "metadata.google.internal"}, "metadata"),
        ({"scheme": "https", "host": "0x7f.1"}, "the proxy's own machine"),
        ({"scheme": "https", "host": "10.1.1.1"}, "--allow-upstream-networks"),
        ({"host": "api.test"}, "--plaintext-upstreams"),
    ],
)
async def test_a_proxy_is_not_asked_for_what_is_known_to_be_bad(request_: dict[str, str], words: str) -> None:
    async with running_upstream() as upstream, running_proxy(upstream.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with running_pool(**LIMITS, proxies=parse_proxies(https_proxy=url, http_proxy=url)) as pool:
            answer = await ask(pool, outgoing(443, **request_))

    assert isinstance(answer.error, UpstreamNotAllowed)
    assert words in str(answer.error)
    assert proxy.requests == []


async def test_a_proxy_may_be_anywhere_because_the_operator_put_it_there() -> None:
    async with running_upstream() as upstream, running_proxy(upstream.port) as proxy:
        proxies = parse_proxies(http_proxy=f"http://127.0.0.1:{proxy.port}")
        async with running_pool(**LIMITS, proxies=proxies, egress=Egress(loopback=False)) as pool:
            answer = await ask(pool, outgoing(80, host="api.test"), may_be_plain=True)

    assert answer.status == 200
