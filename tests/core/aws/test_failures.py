"""What went wrong at AWS is told in our words: nothing of an error's text comes through."""

import inspect
import re
from collections import defaultdict

import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given
from hypothesis import strategies as st

from credentiald.aws import failures
from credentiald.aws.failures import denial_of, may_pass, words_of
from credentiald.aws.progress import Progress
from credentiald.aws.steps import MEANINGS, Outcome, Step, answered_by, told

CANARY = "cAnArY"


def botocore_errors():
    """One of each of botocore's errors, with the canary in every field of its text."""
    for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass):
        if not issubclass(kind, BotoCoreError):
            continue
        needed = {"last_response"} & set(inspect.signature(kind.__init__).parameters)
        yield kind(**dict.fromkeys([*re.findall(r"{(\w+)", kind.fmt), *needed], CANARY))


def client_error(code, status=400):
    return ClientError(
        {"Error": {"Code": code, "Message": CANARY}, "ResponseMetadata": {"HTTPStatusCode": status}}, CANARY
    )


OTHERS = [
    RuntimeError(CANARY),
    FileNotFoundError(2, CANARY, CANARY),
    PermissionError(13, CANARY, CANARY),
    ValueError(CANARY),
    KeyError(CANARY),
    TypeError(CANARY),
    ZeroDivisionError(CANARY),
    Exception(CANARY),
    client_error(CANARY),
    client_error("AccessDenied"),
    client_error(""),
    UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
]


@pytest.mark.parametrize("error", [*botocore_errors(), *OTHERS], ids=lambda error: type(error).__name__)
def test_no_error_tells_its_text(error):
    for step in ("", *MEANINGS):
        words = words_of(error, step)
        assert words
        assert CANARY not in words


@given(st.text(max_size=30), st.integers(100, 599))
def test_a_code_of_aws_is_repeated_only_if_it_is_known(code, status):
    denial = denial_of(client_error(code, status))
    assert denial.code in ("", *failures._CODES)
    assert denial.code in ("", code)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (client_error("AccessDenied", 403), False),
        (client_error("ExpiredToken", 403), False),
        (client_error("ValidationError"), False),
        (client_error("Something"), False),
        (client_error("Something", 503), True),
        (client_error("Throttling"), True),
        (client_error("IDPCommunicationError"), True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), True),
        (botocore.exceptions.ParamValidationError(report="x"), False),
        (OSError(), True),
    ],
)
def test_what_may_pass_by_itself(error, passes):
    assert may_pass(error) is passes


def test_steps_are_told_with_what_happened_first():
    steps = [
        Step(name="env", outcome=Outcome.NOTHING),
        Step(name="sso", outcome=Outcome.NOTHING),
        Step(name="container-role", outcome=Outcome.FAILED, detail="no answer in time", seconds=9.04),
    ]
    assert told(steps) == "container-role: no answer in time (9.0 s); nothing from env, sso"
    assert told([]) == "none"
    assert answered_by(steps) == ""
    assert answered_by([*steps, Step(name="iam-role", outcome=Outcome.ANSWERED)]) == "iam-role"


def test_a_step_that_raises_is_told_and_one_that_runs_as_well():
    progress = Progress()
    with pytest.raises(ValueError), progress.step("sso"):
        raise ValueError(CANARY)
    with progress.step("env") as report:
        running = progress.steps()[-1]
        report.answered()
    assert (running.name, running.outcome) == ("env", Outcome.RUNNING)
    outcomes = defaultdict(list)
    for step in progress.steps():
        outcomes[step.outcome].append(step.name)
        assert CANARY not in step.detail
    assert outcomes == {Outcome.FAILED: ["sso"], Outcome.ANSWERED: ["env"]}
