"""Base URLs of providers: one that is let in has a host and port that every reader finds in it."""

from urllib.parse import urlsplit

import yarl

from credentiald.catalog import effective_base_url, wire_type
from credentiald.validation import base_url_problem, name_problem, region_problem, role_arn_problem, username_problem

WORDS = [
    b"https://",
    b"http://",
    b"//",
    b"@",
    b"#",
    b"?",
    b"\\",
    b"..",
    b"%2e",
    b"%2F",
    b"[::1]",
    b"[",
    b"]",
    b":443",
    b":",
    b"%",
    b"\t",
    b"\n",
    b"\xe3\x80\x82",
    b"xn--",
    b".openai.azure.com",
    b"localhost",
    b"0x7f.1",
    b";",
    b"%00",
    b"api.openai.com",
]
SEEDS = [
    b"https://api.openai.com/v1/",
    b"http://[::1]:8080/a/b",
    b"https://a.openai.azure.com",
    b"https://x@y/",
    b"https://h:99999/",
    b"HTTP://H/%2e%2e/",
    b"https://h\\@evil/",
]


def one_input(data: bytes) -> None:
    url = data.decode("utf-8", "replace")
    name_problem(url), region_problem(url), role_arn_problem(url), username_problem(url)
    if base_url_problem(url) is not None:
        return
    parts, other = urlsplit(url), yarl.URL(url, encoded=True)
    assert parts.hostname, url
    assert (parts.scheme, parts.hostname.lower(), parts.port) == (
        other.scheme,
        (other.raw_host or "").lower(),
        other.explicit_port,
    )
    assert parts.username is None, url
    assert other.user is None, url
    assert not parts.query and not parts.fragment, url  # noqa: PT018
    assert "@" not in parts.netloc, url
    wire_type("openai", url, None)
    assert effective_base_url("openai-compat", url) == url
