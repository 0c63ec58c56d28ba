"""Which names in a client certificate can stand for a service."""

import pytest

from credentiald import certificate_names


@pytest.mark.parametrize(
    "san",
    [
        "spiffe://example.org/bridge",
        "https://bridge.example.org/it",
        "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "bridge",
        "bridge.ns.svc.cluster.local",
        "_bridge.example.org",
    ],
)
def test_uris_and_dns_names_can_stand_for_a_service(san):
    assert certificate_names.problem(san) is None


@pytest.mark.parametrize(
    "san",
    [
        "",
        "*.example.org",
        "10.0.0.1",
        "::1",
        "ann@example.org",
        "localhost:7410",
        "bridge.example.org.",
        ".example.org",
        "bridge example",
        "spiffe://example.org/a b",
        "spiffe://",
        "Bridge.Example.ORG",
        "a." * 127 + "a",
        "spiffe://" + "a" * 2048,
    ],
)
def test_nothing_else_can(san):
    assert certificate_names.problem(san) is not None


def test_dns_names_have_no_case_and_uris_do():
    assert certificate_names.canonical("Bridge.Example.ORG") == "bridge.example.org"
    assert certificate_names.canonical("spiffe://example.org/Bridge") == "spiffe://example.org/Bridge"


def test_a_name_counts_only_as_what_the_certificate_says_that_it_is():
    found = certificate_names.of_certificate(
        uris=["spiffe://example.org/bridge", "bridge.example.org", "mailto:a@b.example"],
        # The first letter of the second is U+212A, which is a k to who makes it lower case.
        dns_names=[
            "Other.Example.org",
            "\u212aeys.example.org",
            "spiffe://example.org/admin",
            "*.example.org",
            "10.0.0.1",
        ],
    )
    assert found == ("spiffe://example.org/bridge", "other.example.org")
