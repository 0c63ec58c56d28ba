"""Which upstreams are reached through a proxy."""

import pytest

from bridged.http1.proxies import parse_proxies

PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "line"),
    [
        ("http://proxy.test:3128", "http", "proxy.test", 3128, ""),
        ("http://proxy.test", "http", "proxy.test", 80, ""),
        (" https://proxy.test/ ", "https", "proxy.test", 443, ""),
        ("proxy.test:3128", "http", "proxy.test", 3128, ""),
        ("http://[::1]:3128", "http", "::1", 3128, ""),
        ("http://u%20r:p%3Aw@proxy.test", "http", "proxy.test", 80, "Proxy-Authorization: Basic dSByOnA6dw==\r\n"),
        ("http://user@proxy.test", "http", "proxy.test", 80, "Proxy-Authorization: Basic dXNlcjo=\r\n"),
    ],
)  # fmt: skip
def test_a_proxy_is_read_from_its_url(text: str, scheme: str, host: str, port: int, line: str) -> None:
    proxy = parse_proxies(https_proxy=text).https

    assert proxy is not None
    assert (proxy.scheme, proxy.host, proxy.port, proxy.authorization_line()) == (scheme, host, port, line)


@pytest.mark.parametrize(
    "text",
    [
        "socks5://u:canary@proxy.test", "http://u:canary@proxy.test:port", "http://u:canary@", "http://canary@x/path",
        "http://u:canary@x?y", "http://u:canary@[::1", "http://u:canary@x:99999",
    ],
)  # fmt: skip
def test_a_url_that_is_none_of_a_proxy_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="HTTP_PROXY is not the URL") as refused:
        parse_proxies(http_proxy=text)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_proxys_credential_is_not_printed() -> None:
    proxies = parse_proxies(https_proxy="http://user:canary@proxy.test", http_proxy="http://canary@proxy.test")
    assert "canary" not in f"{proxies!r} {proxies.https} {proxies.http!s}"


def test_each_scheme_has_its_own_proxy() -> None:
    proxies = parse_proxies(https_proxy="http://one.test", http_proxy="http://two.test")
    found = [proxies.for_upstream(scheme, "api.test", 443) for scheme in ("https", "http")]

    assert [one and one.host for one in found] == ["one.test", "two.test"]
    assert parse_proxies(https_proxy="  ").for_upstream("https", "api.test", 443) is None
    assert parse_proxies(https_proxy=PROXY).for_upstream("http", "api.test", 80) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "api.test", 443, False),
        ("*", "api.test", 443, True),
        ("api.test", "api.test", 443, True),
        ("API.Test", "api.test.", 443, True),
        ("api.test", "v1.api.test", 443, True),
        (".api.test", "v1.api.test", 443, True),
        (".api.test", "api.test", 443, True),
        ("*.api.test", "v1.api.test", 443, True),
        ("api.test", "notapi.test", 443, False),
        ("api.test", "api.test.evil", 443, False),
        ("x, api.test ,y", "api.test", 443, True),
        ("api.test:8443", "api.test", 443, False),
        ("api.test:8443", "api.test", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "api.test", 443, False),
        ("10.0.0.0/99", "10.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("2.3", "10.1.2.3", 443, False),
        ("2001:db8::/32", "2001:db8::1", 443, True),
        ("2001:db8:0::1", "2001:db8::1", 443, True),
        ("[2001:db8::1]:443", "2001:db8::1", 443, True),
        # A proxy would look at itself.
        ("", "localhost", 443, True),
        ("", "127.0.0.1", 443, True),
        ("", "::1", 443, True),
    ],
)
def test_exceptions_go_directly(no_proxy: str, host: str, port: int, direct: bool) -> None:
    proxies = parse_proxies(https_proxy=PROXY, no_proxy=no_proxy)
    assert (proxies.for_upstream("https", host, port) is None) is direct
