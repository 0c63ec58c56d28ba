"""What a request of Anthropic Messages becomes for Bedrock: the tables row by row, and every other byte as it was."""

import base64
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.bedrock.families import ALWAYS_PASSING_BETAS, CONTEXT_MANAGEMENT, DROPPED_FIELDS, EFFORT, SYSTEM_MESSAGES
from bridged.bedrock.messages_request import countable_model, messages_to_count, messages_to_invoke, model_path
from bridged.model import BedrockModelRule, BedrockOptions, Headers, Refused

OPUS_4_1 = "anthropic.claude-opus-4-1-20250805-v1:0"
OPUS_4_5 = "us.anthropic.claude-opus-4-5-20251101-v1:0"
SONNET_4_5 = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
HAIKU_4_5 = "anthropic.claude-haiku-4-5-20251001-v1:0"
OPUS_4_6 = "global.anthropic.claude-opus-4-6-v1"
SONNET_4_6 = "us.anthropic.claude-sonnet-4-6"
OPUS_4_7 = "us.anthropic.claude-opus-4-7"
OPUS_4_8 = "us.anthropic.claude-opus-4-8"
SONNET_5 = "us.anthropic.claude-sonnet-5"
PROFILE = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2c3"
ALL_MODELS = (OPUS_4_1, OPUS_4_5, SONNET_4_5, HAIKU_4_5, OPUS_4_6, SONNET_4_6, OPUS_4_7, OPUS_4_8, SONNET_5, PROFILE)
NO_OPTIONS = BedrockOptions(region="us-east-1")


def betas(*values: str) -> Headers:
    return tuple(("Anthropic-Beta", value) for value in values)


def invoke_bytes(
    body: bytes, headers: Headers = (), model: str = OPUS_4_1, options: BedrockOptions = NO_OPTIONS, asked_for: str = ""
) -> bytes:
    return messages_to_invoke(body, headers, model=model, asked_for=asked_for, options=options)[0]


def invoke(
    body: dict[str, Any], headers: Headers = (), model: str = OPUS_4_1, options: BedrockOptions = NO_OPTIONS,
    asked_for: str = "",
) -> dict[str, Any]:  # fmt: skip
    edited = json.loads(invoke_bytes(json.dumps(body).encode(), headers, model, options, asked_for))
    assert isinstance(edited, dict)
    return edited


def refused(body: dict[str, Any], model: str = OPUS_4_1) -> Refused:
    with pytest.raises(Refused) as error:
        invoke(body, model=model)
    return error.value


# -- the body as a whole ----------------------------------------------------------------------------------------------


def test_model_and_stream_leave_the_body_and_the_version_comes() -> None:
    body = b'{"model":"claude-opus-4-1","max_tokens":5, "messages":[{"role":"user","content":"hi"}] ,"stream":true}'

    edited, stream = messages_to_invoke(body, (), model=OPUS_4_1, asked_for="claude-opus-4-1", options=NO_OPTIONS)

    assert edited == (
        b'{"max_tokens":5, "messages":[{"role":"user","content":"hi"}] ,"anthropic_version":"bedrock-2023-05-31"}'
    )
    assert stream


@pytest.mark.parametrize(
    ("spelled", "stream"),
    [('"stream":false,', False), ('"stream":null,', False), ("", False), ('"stream":true,', True)],
)
def test_a_stream_is_what_the_body_says(spelled: str, stream: bool) -> None:
    body = ('{"model":"m",' + spelled + '"max_tokens":1}').encode()
    assert messages_to_invoke(body, (), model=OPUS_4_1, asked_for="m", options=NO_OPTIONS)[1] is stream


KEPT_BYTES = st.sampled_from(
    [
        '"temperature":1e400',
        '"temperature" : 1.0',
        '"n":123456789012345678901234567890',
        '"tools":[{"name":"x","input_schema":{"cache_control":{"scope":"mine"},"a":1,"a":2}}]',
        '"stop_sequences":["\\ud83d","\\u0041"]',
        '"messages":[{"role":"user","content":"\\"role\\":\\"system\\" \\/"}]',
        '"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"role":"system"}}]}]',
        '"max_tokens":10,"max_tokens":20',
        '"system":"x"',
        '"top_k": 1 ,"top_p":0.10',
        '"something_new":{"deep":[[],{}]}',
        '"mcp_servers":[]',
    ]
)
EDITED_BYTES = st.sampled_from(['"model":"m"', '"stream":false', '"metadata":{"user_id":"u"}', '"service_tier":"auto"'])


@given(st.lists(st.tuples(st.booleans(), KEPT_BYTES, EDITED_BYTES), max_size=8), st.sampled_from(ALL_MODELS))
def test_every_byte_that_is_not_edited_survives_in_its_order(drawn: list[tuple[bool, str, str]], model: str) -> None:
    members = [kept if keep else edited for keep, kept, edited in drawn]
    kept = [kept for keep, kept, _ in drawn if keep]

    edited = invoke_bytes(("{" + ",".join(members) + "}").encode(), model=model)

    assert edited.decode() == "{" + ",".join([*kept, '"anthropic_version":"bedrock-2023-05-31"']) + "}"


def test_the_same_request_is_the_same_bytes_every_time() -> None:
    body = json.dumps({"model": "m", "max_tokens": 9000, "thinking": {"type": "adaptive"}, "messages": []}).encode()
    headers = betas("context-1m-2025-08-07, interleaved-thinking-2025-05-14", "computer-use-2025-01-24")

    assert len({invoke_bytes(body, headers) for _ in range(5)}) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1}x', b'{"thinking":{"type":}}', b'{"output_config":{]}'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as error:
        invoke_bytes(body)
    assert (error.value.reason, error.value.http_status) == ("INVALID_BODY", 400)


# -- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("field", [name for name, flag in DROPPED_FIELDS.items() if not flag])
def test_fields_that_no_model_takes_are_dropped(field: str, model: str) -> None:
    assert field not in invoke({"max_tokens": 1, field: {"x": 1}}, model=model)


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("flag", [CONTEXT_MANAGEMENT, EFFORT, "claude-code-20250219"])
def test_context_management_stays_where_its_flag_does(model: str, flag: str) -> None:
    edited = invoke({"max_tokens": 1, "context_management": {"edits": []}}, betas(flag), model)
    stays = flag == CONTEXT_MANAGEMENT and model in (SONNET_4_5, HAIKU_4_5)
    assert ("context_management" in edited) is stays
    assert ("anthropic_beta" in edited) is (stays or (flag == EFFORT and model == OPUS_4_5))


@pytest.mark.parametrize(
    ("model", "flags", "expected"),
    [
        (OPUS_4_1, (EFFORT,), None),
        (OPUS_4_5, (), None),
        (OPUS_4_5, (EFFORT,), {"effort": "low", "format": {"type": "json_schema"}}),
        (OPUS_4_6, (EFFORT,), None),
        (OPUS_4_7, (), {"effort": "low"}),
        (OPUS_4_8, (EFFORT,), {"effort": "low"}),
        (SONNET_5, (), {"effort": "low"}),
    ],
)
def test_output_config_is_what_the_model_takes_of_it(
    model: str, flags: tuple[str, ...], expected: dict[str, Any] | None
) -> None:
    body = {"max_tokens": 1, "output_config": {"effort": "low", "format": {"type": "json_schema"}}}
    assert invoke(body, betas(*flags), model).get("output_config") == expected


# -- beta flags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL_MODELS)
def test_flags_that_every_model_takes_pass_and_unknown_ones_do_not(model: str) -> None:
    flags = sorted(ALWAYS_PASSING_BETAS)
    headers = betas(",".join(flags[:3]) + ", claude-code-20250219 ,", *flags[3:], "prompt-caching-scope-2026-01-05")
    assert invoke({}, headers, model)["anthropic_beta"] == flags


@pytest.mark.parametrize(
    ("model", "passing"),
    [(OPUS_4_5, [EFFORT]), (SONNET_4_5, [CONTEXT_MANAGEMENT]), (HAIKU_4_5, [CONTEXT_MANAGEMENT]), (OPUS_4_6, [])],
)
def test_flags_of_a_family_pass_with_it_only(model: str, passing: list[str]) -> None:
    edited = invoke({}, betas(f"{EFFORT},{CONTEXT_MANAGEMENT},{SYSTEM_MESSAGES}"), model)
    assert edited.get("anthropic_beta", []) == passing


def test_flags_of_headers_and_body_are_merged_each_once() -> None:
    body = {"anthropic_beta": ["computer-use-2025-01-24", "context-1m-2025-08-07", "unknown"]}
    edited = invoke(body, betas("context-1m-2025-08-07", "tool-examples-2025-10-29,context-1m-2025-08-07"))
    assert edited["anthropic_beta"] == [
        "context-1m-2025-08-07",
        "tool-examples-2025-10-29",
        "computer-use-2025-01-24",
    ]


@pytest.mark.parametrize("value", ["context-1m-2025-08-07", [1], {}, True])
def test_flags_in_the_body_that_are_no_list_of_strings_are_refused(value: object) -> None:
    assert refused({"anthropic_beta": value}).message == "anthropic_beta: must be a list of strings"


def test_a_body_without_a_flag_that_passes_has_no_list_of_them() -> None:
    assert "anthropic_beta" not in invoke({"anthropic_beta": ["unknown"]}, betas("also-unknown"))


# -- thinking ---------------------------------------------------------------------------------------------------------

ADAPTIVE = {"type": "adaptive", "display": "summarized"}
ENABLED = {"type": "enabled", "budget_tokens": 5000}
DISABLED = {"type": "disabled"}


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        *[(model, ADAPTIVE, {"type": "enabled", "budget_tokens": 8000}) for model in ALL_MODELS[:4]],
        *[(model, ENABLED, ENABLED) for model in ALL_MODELS[:6]],
        *[(model, ADAPTIVE, ADAPTIVE) for model in (OPUS_4_6, SONNET_4_6, OPUS_4_7, OPUS_4_8, SONNET_5)],
        *[(model, ENABLED, {"type": "adaptive"}) for model in (OPUS_4_7, OPUS_4_8, SONNET_5)],
        *[(model, DISABLED, DISABLED) for model in ALL_MODELS],
        *[(model, {"type": "of tomorrow"}, {"type": "of tomorrow"}) for model in ALL_MODELS],
        (OPUS_4_1, None, None),
        (OPUS_4_1, "adaptive", "adaptive"),
        (OPUS_4_7, {**ENABLED, "display": "omitted"}, {"type": "adaptive", "display": "omitted"}),
    ],
)
def test_thinking_is_written_as_the_model_takes_it(model: str, thinking: object, expected: object) -> None:
    assert invoke({"max_tokens": 10000, "thinking": thinking}, model=model)["thinking"] == expected


@pytest.mark.parametrize(
    ("effort", "max_tokens", "expected"),
    [
        ("low", 10000, 2000),
        ("medium", 10000, 5000),
        ("high", 10000, 8000),
        ("max", 10000, 9500),
        ("of tomorrow", 10000, 8000),
        (3, 10000, 8000),
        (None, 10000, 8000),
        (None, 10000.0, 8000),
        ("high", 1280, 1024),
        ("high", 1279, None),
        ("low", 5119, None),
        ("low", 5120, 1024),
        ("max", 10**30, 95 * 10**28),
        ("high", 0, None),
        ("high", -5, None),
    ],
)
def test_a_budget_is_a_part_of_max_tokens_and_too_small_a_one_is_none(
    effort: object, max_tokens: float, expected: int | None
) -> None:
    body = {"max_tokens": max_tokens, "thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    thinking = invoke(body, model=OPUS_4_1)["thinking"]
    assert thinking == (DISABLED if expected is None else {"type": "enabled", "budget_tokens": expected})


def test_the_effort_counts_although_its_field_is_dropped() -> None:
    edited = invoke({"output_config": {"effort": "max"}, "max_tokens": 2000, "thinking": {"type": "adaptive"}})
    assert edited["thinking"] == {"type": "enabled", "budget_tokens": 1900}
    assert "output_config" not in edited


@pytest.mark.parametrize(
    ("spelled", "message"),
    [
        ("", "max_tokens: field required"),
        (',"max_tokens":null', "max_tokens: field required"),
        (',"max_tokens":"9000"', "max_tokens: must be a whole number"),
        (',"max_tokens":true', "max_tokens: must be a whole number"),
        (',"max_tokens":0.5', "max_tokens: must be a whole number"),
        (',"max_tokens":1e400', "max_tokens: must be a whole number"),
    ],
)
def test_a_budget_needs_max_tokens(spelled: str, message: str) -> None:
    with pytest.raises(Refused) as error:
        invoke_bytes(('{"thinking":{"type":"adaptive"}' + spelled + "}").encode())
    assert (error.value.reason, error.value.message) == ("INVALID_BODY", message)


@given(st.sampled_from(["low", "medium", "high", "max"]), st.integers(1, 200_000))
def test_a_budget_is_always_one_that_the_api_takes(effort: str, max_tokens: int) -> None:
    body = {"max_tokens": max_tokens, "thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    thinking = invoke(body)["thinking"]
    assert thinking == DISABLED or 1024 <= thinking["budget_tokens"] < max_tokens


# -- messages and blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL_MODELS)
def test_system_messages_are_the_users_where_the_model_takes_none(model: str) -> None:
    body = (
        b'{"messages":[{"role":"user","content":"a"}, {"content":"b" , "role" : "system"} ,'
        b'{"role":"assistant","content":[{"type":"tool_use","input":{"role":"system"}}]}]}'
    )
    expected = body if model == OPUS_4_8 else body.replace(b'"role" : "system"', b'"role" : "user"')
    assert invoke_bytes(body, model=model) == expected[:-1] + b',"anthropic_version":"bedrock-2023-05-31"}'


def test_an_administrator_can_let_system_messages_through() -> None:
    options = BedrockOptions(model_rules=(BedrockModelRule(contains="opus-4-1", betas=(SYSTEM_MESSAGES,)),))
    edited = invoke({"messages": [{"role": "system", "content": "x"}]}, betas(SYSTEM_MESSAGES), options=options)
    assert edited["messages"][0]["role"] == "system"
    assert edited["anthropic_beta"] == [SYSTEM_MESSAGES]


CONTROL = {"type": "ephemeral", "ttl": "1h", "scope": "global"}


@pytest.mark.parametrize("model", ALL_MODELS)
def test_cache_control_keeps_what_the_model_takes_wherever_blocks_are(model: str) -> None:
    taken = {"type": "ephemeral"} if model in (OPUS_4_1, PROFILE) else {"type": "ephemeral", "ttl": "1h"}

    def body(control: dict[str, str]) -> dict[str, Any]:
        block = {"type": "text", "text": "x", "cache_control": control}
        result = {"type": "tool_result", "content": [block], "cache_control": control}
        schema = {"properties": {"cache_control": CONTROL}}
        return {
            "system": [block],
            "tools": [{"name": "t", "input_schema": schema, "cache_control": control}],
            "messages": [
                {"role": "user", "content": [block, result]},
                {"role": "assistant", "content": [{"type": "tool_use", "input": {"cache_control": CONTROL}}]},
                {"role": "user", "content": 'words: "cache_control" "scope" "ttl"'},
            ],
        }

    assert invoke(body(CONTROL), model=model) == body(taken) | {"anthropic_version": "bedrock-2023-05-31"}


@pytest.mark.parametrize(
    ("before", "part", "last", "after"),
    [
        (b'{"messages":[', b"[]", b'{"cache_control":{"scope":1}}', b"]}"),
        (b'{"messages":[', b"[]", b'{"role":"system"}', b"]}"),
        (b"{", b'"a":1', b'"b":1', b"}"),
    ],
)
def test_more_parts_than_the_api_takes_are_refused(before: bytes, part: bytes, last: bytes, after: bytes) -> None:
    def body(parts: int) -> bytes:
        return before + b",".join([part] * (parts - 1) + [last]) + after

    assert invoke_bytes(body(100_000)).count(part) == 99_999
    with pytest.raises(Refused, match="100000 parts"):
        invoke_bytes(body(100_001))


def test_blocks_deeper_than_the_api_has_them_are_left_alone_and_cost_nothing() -> None:
    control, text = b'{"cache_control":{"scope":"x"},"text":"', b"x" * 100_000
    block = control + text + b'"}'
    for levels in (4, 5, 300):
        body = b'{"messages":[' + b'{"content":[' * (levels - 1) + block + b"]}" * (levels - 1) + b"]}"
        tracemalloc.start()
        edited = invoke_bytes(body)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (b'"scope"' in edited) is (levels > 4)
        assert peak_bytes < 40 * len(body)


# -- which family -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked_for", "rules", "thinking"),
    [
        (PROFILE, "", (), "enabled"),
        (PROFILE, "claude-opus-4-7", (), "adaptive"),
        (PROFILE, "", (BedrockModelRule(contains="a1b2c3", family="claude-opus-4-7"),), "adaptive"),
        (PROFILE, "", (BedrockModelRule(contains="A1B2", family="anthropic.claude-opus-4-6-v1"),), "adaptive"),
        (PROFILE, "claude-opus-4-7", (BedrockModelRule(contains="a1b2c3", family="other"),), "enabled"),
        (PROFILE, "", (BedrockModelRule(contains="zzz", family="claude-opus-4-7"),), "enabled"),
        (PROFILE, "", (BedrockModelRule(contains="", family="claude-opus-4-7"),), "enabled"),
        (PROFILE, "", (BedrockModelRule(contains="a1", family="unheard-of"),), "enabled"),
        (OPUS_4_7, "", (BedrockModelRule(contains="opus", family="unheard-of"),), "adaptive"),
        (OPUS_4_7, "claude-opus-4-1", (), "adaptive"),
        ("us.anthropic.claude-opus-4.7", "", (), "adaptive"),
        (
            PROFILE,
            "",
            (
                BedrockModelRule(contains="a1", family="other"),
                BedrockModelRule(contains="a1b2", family="claude-opus-4-7"),
            ),
            "enabled",
        ),
    ],
)
def test_rules_decide_then_the_id_then_the_name_that_was_asked_for(
    model: str, asked_for: str, rules: tuple[BedrockModelRule, ...], thinking: str
) -> None:
    body = {"max_tokens": 10000, "thinking": {"type": "adaptive"}}
    edited = invoke(body, model=model, asked_for=asked_for, options=BedrockOptions(model_rules=rules))
    assert edited["thinking"]["type"] == thinking


def test_a_rules_flags_pass_besides_the_familys() -> None:
    options = BedrockOptions(model_rules=(BedrockModelRule(contains="sonnet-4-5", betas=("skills-2025-10-02",)),))
    edited = invoke({}, betas(f"skills-2025-10-02,{CONTEXT_MANAGEMENT},{EFFORT}"), SONNET_4_5, options)
    assert edited["anthropic_beta"] == ["skills-2025-10-02", CONTEXT_MANAGEMENT]


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke"),
        (
            PROFILE,
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fa1b2c3/invoke",
        ),
        ("a b%?#é", "/model/a%20b%25%3F%23%C3%A9/invoke"),
        ("../x", "/model/..%2Fx/invoke"),
    ],
)
def test_an_id_is_one_segment_of_the_path(model: str, path: str) -> None:
    assert model_path(model, "invoke") == path


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_an_id_that_would_be_no_segment_is_refused(model: str) -> None:
    with pytest.raises(Refused) as error:
        model_path(model, "invoke")
    assert error.value.reason == "INVALID_BODY"


# -- counting ---------------------------------------------------------------------------------------------------------


def counted(body: dict[str, Any], headers: Headers = (), model: str = OPUS_4_1) -> dict[str, Any]:
    outer = json.loads(
        messages_to_count(json.dumps(body).encode(), headers, model=model, asked_for="", options=NO_OPTIONS)
    )
    inner = json.loads(base64.b64decode(outer["input"]["invokeModel"]["body"], validate=True))
    assert outer == {"input": {"invokeModel": {"body": outer["input"]["invokeModel"]["body"]}}}
    assert isinstance(inner, dict)
    return inner


@given(st.dictionaries(st.sampled_from(["system", "messages", "tools", "stream", "metadata"]), st.text(max_size=5)))
def test_what_is_counted_is_what_would_be_invoked(body: dict[str, Any]) -> None:
    body = {**body, "model": "m", "max_tokens": 7}
    assert counted(body, betas("context-1m-2025-08-07")) == invoke(body, betas("context-1m-2025-08-07"))


@pytest.mark.parametrize(
    ("model", "thinking", "max_tokens"),
    [
        (OPUS_4_1, None, 1),
        (OPUS_4_1, {"type": "disabled"}, 1),
        (OPUS_4_1, {"type": "adaptive"}, 8192),
        (OPUS_4_1, {"type": "enabled", "budget_tokens": 20000}, 20001),
        (OPUS_4_7, {"type": "enabled", "budget_tokens": 20000}, 1),
        (OPUS_4_7, {"type": "adaptive"}, 1),
        (OPUS_4_1, {"type": "enabled", "budget_tokens": "many"}, 1),
    ],
)
def test_a_count_without_max_tokens_gets_one_that_the_thinking_fits_into(
    model: str, thinking: object, max_tokens: int
) -> None:
    body = {"messages": [], "thinking": thinking} if thinking else {"messages": []}
    inner = counted(body, model=model)
    assert inner["max_tokens"] == max_tokens
    assert inner.get("thinking", {}).get("type") != "disabled" or thinking == {"type": "disabled"}


@pytest.mark.parametrize(
    ("model", "countable"),
    [
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", "anthropic.claude-opus-4-5-20251101-v1:0"),
        ("us-gov.anthropic.claude-sonnet-4-5", "anthropic.claude-sonnet-4-5"),
        ("apac.anthropic.claude-sonnet-4", "anthropic.claude-sonnet-4"),
        ("global.anthropic.claude-opus-4-6-v1", "anthropic.claude-opus-4-6-v1"),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", "anthropic.claude-3-5-haiku-20241022-v1:0"),
        (
            "arn:aws:bedrock:eu-west-1:111122223333:inference-profile/eu.anthropic.claude-sonnet-4-6",
            "anthropic.claude-sonnet-4-6",
        ),
        (PROFILE, PROFILE),
        ("us.amazon.nova-pro-v1:0", "us.amazon.nova-pro-v1:0"),
        ("claude-opus-4-6", "claude-opus-4-6"),
    ],
)
def test_tokens_are_counted_with_the_foundation_model_behind_a_profile(model: str, countable: str) -> None:
    assert countable_model(model) == countable
