"""Names, URLs and regions: what is allowed and what is not."""

from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from credentiald.validation import (
    RESERVED_NAMES,
    base_url_problem,
    destination_hints,
    destination_problem,
    name_problem,
    region_problem,
    role_arn_problem,
    username_problem,
)


@pytest.mark.parametrize("name", ["openai", "a", "0", "anthropic-corp", "a-b-c1", "v2", "x" * 128])
def test_good_names(name):
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a--b", "A", "a_b", "a.b", "a/b", "a b", "a\n", "é", "x" * 129, *sorted(RESERVED_NAMES)]
)
def test_bad_names(name):
    assert name_problem(name) is not None


@pytest.mark.parametrize("name", ["alice", "Alice.B", "a@example.com", "_svc", "x+y", "7", "a-", "x" * 128])
def test_good_usernames(name):
    assert username_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        " a",
        "a b",
        "-a",
        "@a",
        "a/b",
        "a\n",
        "é",
        "x" * 129,
        "0190c9a0-0000-7000-8000-000000000000",
        "0190C9A000007000800000000000ABCD",
    ],
)
def test_bad_usernames(name):
    assert username_problem(name) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1/",
        "http://127.0.0.1:8080",
        "https://[::1]:8443/x",
        "https://host_name.internal/a/b.c/d..e",
        "https://my-deployment.openai.azure.com/",
        "https://chatgpt.com/backend-api/codex",
        "https://xn--bcher-kva.example/a%20b",
    ],
)
def test_good_base_urls(url):
    assert base_url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "absolute"),
        ("api.openai.com/v1", "absolute"),
        ("//api.openai.com/v1", "absolute"),
        ("ftp://x/", "absolute"),
        ("file:///etc/passwd", "absolute"),
        ("https:x", "host"),
        ("https://", "host"),
        ("https:///x", "host"),
        ("https://:443/", "host"),
        ("https://x:/", "host"),
        ("https://x:0/", "host"),
        ("https://x:99999/", "host"),
        ("https://x:+1/", "host"),
        ("https://x:y/", "host"),
        ("https://[::1/", "cannot be read"),
        ("https://[::1]evil.example/", "cannot be read|host"),
        ("https://[v1.x]/", "host"),
        ("https://-x/", "host"),
        ("https://a%2eb/", "host"),
        ("https://a,b/", "host"),
        ("https://user@x/", "user name"),
        ("https://user:pass@x/", "user name"),
        ("https://x/?a=1", "query"),
        ("https://x/?", "query"),
        ("https://x/#f", "fragment"),
        ("https://x/#", "fragment"),
        ("https://x/a b", "visible"),
        ("https://x/\ta", "visible"),
        ("ht\ntps://x/", "visible"),
        ("https://x\\@evil.example/", "visible"),
        ("https://bücher.example/", "visible"),
        ("https://x/../a", "segments"),
        ("https://x/a/%2E%2e", "segments"),
        ("https://x/a/.", "segments"),
        ("https://x/" + "a" * 2048, "longer"),
    ],
)
def test_bad_base_urls(url, problem):
    found = base_url_problem(url)
    assert found is not None
    assert any(part in found for part in problem.split("|"))


@given(st.text(alphabet="htps:/@#?%.[]\\-_1ae\t\n é", max_size=20).map(lambda tail: f"https://{tail}"))
def test_two_parsers_agree_on_where_an_accepted_url_goes(url):
    if base_url_problem(url) is not None:
        return
    parts, other = urlsplit(url), yarl.URL(url, encoded=True)
    assert (parts.hostname, parts.port) == (other.raw_host, other.explicit_port)
    assert (other.user, other.query_string, other.fragment) == (None, "", "")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("api.openai.com", None),
        ("127.0.0.1:8080", None),
        ("10.0.0.1", None),
        ("[fd12::1]", None),
        ("8.8.8.8", None),
        ("169.254.169.254", "metadata"),
        ("2852039166", "metadata"),
        ("0xa9fea9fe", "metadata"),
        ("0251.0376.0251.0376.", "metadata"),
        ("[::ffff:169.254.169.254]", "metadata"),
        ("[fd00:ec2::254]", "metadata"),
        ("Metadata.google.internal", "metadata"),
        ("169.254.1.1:80", "link-local"),
        ("[fe80::1]", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("[2001:db8::1]", "reserved"),
    ],
)
def test_a_base_url_where_no_bridge_may_go_is_found_as_far_as_it_says_where_it_is(host, words):
    for scheme in ("http", "https"):
        assert base_url_problem(f"{scheme}://{host}/v1") is None
        problem = destination_problem(f"{scheme}://{host}/v1")
        assert problem is None if words is None else words in problem


@pytest.mark.parametrize(
    ("url", "flags"),
    [
        ("https://api.openai.com", []),
        ("", []),
        ("http://127.0.0.1:1", []),
        ("http://[::1]:1", []),
        ("http://0x7f.1", []),
        ("http://localhost:1", []),
        ("http://vllm.internal", ["--plaintext-upstreams lab"]),
        ("https://10.0.0.1", ["--allow-upstream-networks"]),
        ("http://192.168.0.1", ["--allow-upstream-networks", "--plaintext-upstreams lab"]),
        ("http://8.8.8.8", ["--plaintext-upstreams lab"]),
    ],
)
def test_what_a_bridge_has_to_be_set_to_is_told_as_far_as_the_url_says_it(url, flags):
    hints = destination_hints("lab", url)
    assert len(hints) == len(flags)
    assert all(flag in hint for flag, hint in zip(flags, hints, strict=True))


@pytest.mark.parametrize("region", ["us-west-2", "eu-central-1", "us-gov-west-1", "local"])
def test_good_regions(region):
    assert region_problem(region) is None


@pytest.mark.parametrize("region", ["", "US-WEST-2", "us_west_2", "evil.example", "a/b", "a@b", "x" * 64, "a\n"])
def test_bad_regions(region):
    assert region_problem(region) is not None


def test_role_arns():
    assert role_arn_problem("arn:aws:iam::123456789012:role/path/name") is None
    assert role_arn_problem("arn:aws-us-gov:iam::123456789012:role/name") is None
    for wrong in (
        "",
        "name",
        "arn:aws:iam::1:role/x",
        "arn:aws:iam::123456789012:user/x",
        "arn:aws:iam::123456789012:role/",
    ):
        assert role_arn_problem(wrong) is not None
