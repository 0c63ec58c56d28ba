"""The endpoints that AWS's chain asks, and a machine that is configured for them."""

from collections.abc import Callable, Iterator

import pytest

from tests.fakes.aws import AwsEndpoints, aws_endpoints, chain_environment
from tests.support.aws import REGION


@pytest.fixture
def aws() -> Iterator[AwsEndpoints]:
    """All endpoints."""
    with aws_endpoints() as endpoints:
        yield endpoints


@pytest.fixture
def use(aws: AwsEndpoints, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Configure this process as a machine with these sources ("imds", "container") and a region."""

    def configure(*sources: str, region: str = REGION, **more: str) -> None:
        for name, value in (chain_environment(aws, *sources) | more).items():
            monkeypatch.setenv(name, value)
        if region:
            monkeypatch.setenv("AWS_REGION", region)

    return configure
