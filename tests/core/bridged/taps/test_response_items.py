"""Each item of a Responses answer is recorded once, however its upstream numbers and names what it tells twice."""

import json
from typing import Any

import pytest

from bridged.model import DialectName
from bridged.records import AnswerRecords
from bridged.taps.response_items import MAX_ITEMS, Item, ToldItems, told_item
from tests.support.taps import JSON, tapped

RESPONSES = DialectName.OPENAI_RESPONSES
NO_INDEX = None


def call(call_id: str, asked: str = "{}", **fields: object) -> dict[str, object]:
    return {
        "type": "function_call",
        "id": "fc_" + call_id,
        "call_id": call_id,
        "name": "f",
        "arguments": asked,
    } | fields


def thought(name: str, text: str, **fields: object) -> dict[str, object]:
    return {"type": "reasoning", "id": name, "summary": [{"type": "summary_text", "text": text}]} | fields


MESSAGE = {"type": "message", "id": "msg", "content": [{"type": "output_text", "text": "x"}]}
A, B = call("a"), call("b")
HM, AH = thought("rs_1", "hm"), thought("rs_2", "ah")
COMMENTARY = {**MESSAGE, "id": "msg_2", "phase": "commentary"}

Done = tuple[int | None, dict[str, object]]


def answer(done: list[Done], output: list[dict[str, object]]) -> AnswerRecords:
    events: list[dict[str, Any]] = [
        {"type": "response.output_item.done", "item": item} | ({} if index is None else {"output_index": index})
        for index, item in done
    ]
    events.append({"type": "response.completed", "response": {"id": "r", "output": output}})
    found = tapped([b"data: " + json.dumps(event).encode() + b"\n\n" for event in events], dialect=RESPONSES)
    assert (found.partial, found.troubles) == (False, frozenset())
    return found


def seen(found: AnswerRecords) -> tuple[list[str], list[str]]:
    return [tool.tool_call_id for tool in found.tools], [one.content for one in found.thoughts]


NUMBERED = [
    ("from 0", [(0, HM), (1, A)], [HM, A], ["a"], ["hm"]),
    ("from 1", [(1, A)], [A], ["a"], []),
    ("from 1, one after the other", [(1, HM), (2, A), (3, B)], [HM, A, B], ["a", "b"], ["hm"]),
    ("not at all", [(NO_INDEX, HM), (NO_INDEX, A)], [HM, A], ["a"], ["hm"]),
    ("not at all, output kept out", [(NO_INDEX, HM), (NO_INDEX, A), (NO_INDEX, B)], [], ["a", "b"], ["hm"]),
    ("not at all, a thought at the end only", [(NO_INDEX, A)], [HM, A], ["a"], ["hm"]),
    ("all the same", [(0, HM), (0, AH), (0, A), (0, B)], [HM, AH, A, B], ["a", "b"], ["hm", "ah"]),
    ("in another order", [(0, A), (1, HM), (2, B)], [HM, B, A], ["a", "b"], ["hm"]),
    ("with what is not recorded", [(0, MESSAGE), (1, COMMENTARY), (2, A)], [COMMENTARY, A], ["a"], ["x"]),
    ("and told again", [(0, A), (0, A), (1, HM), (1, HM)], [A, HM], ["a"], ["hm"]),
    ("by the output only", [], [A, HM, B], ["a", "b"], ["hm"]),
    ("but some by the output only", [(0, A)], [A, B, HM], ["a", "b"], ["hm"]),
]


@pytest.mark.parametrize(("done", "output", "calls", "thoughts"), [row[1:] for row in NUMBERED],
                         ids=[row[0] for row in NUMBERED])  # fmt: skip
def test_an_item_counts_once_however_it_is_numbered(
    done: list[Done], output: list[dict[str, object]], calls: list[str], thoughts: list[str]
) -> None:
    assert seen(answer(done, output)) == (calls, thoughts)


NO_ID = {"id": None}
NAMED = [
    ("items anew", [(0, HM), (1, A)], [HM | {"id": "rs_9"}, A | {"id": "fc_9"}], ["a"], ["hm"]),
    ("items anew, from 1", [(1, HM), (2, A)], [HM | {"id": "rs_9"}, A | {"id": "fc_9"}], ["a"], ["hm"]),
    ("calls anew", [(0, A), (1, B)], [call("c"), call("d")], ["a", "b"], []),
    ("calls anew, in other places", [(1, A), (3, call("b", "[1]"))], [call("c"), call("d", "[1]")], ["a", "b"], []),
    ("calls anew, spelt in another way", [(0, call("a", "[1]"))], [call("c", "[ 1 ]")], ["a"], []),
    ("a thought anew, put in another way", [(0, HM)], [thought("rs_9", "hm.")], [], ["hm"]),
    ("nothing", [(0, HM | NO_ID), (1, AH | NO_ID)], [HM | NO_ID, AH | NO_ID], [], ["hm", "ah"]),
    ("nothing, nor numbers it", [(NO_INDEX, HM | NO_ID), (NO_INDEX, AH | NO_ID)], [], [], ["hm", "ah"]),
    ("what says the same", [(0, HM | NO_ID), (1, HM | NO_ID)], [HM | NO_ID, HM | NO_ID], [], ["hm", "hm"]),
    ("calls only when done", [(0, A)], [A | {"call_id": None, "id": None}], ["a"], []),
    ("calls by the output only, which say the same", [(0, A)], [A, B], ["a", "b"], []),
    ("two calls alike", [(0, A), (1, call("a", "[1]"))], [A, call("a", "[1]")], ["a", "a"], []),
    ("a call as a thought", [(0, thought("a", "hm")), (1, A)], [A, thought("a", "hm")], ["a"], ["hm"]),
]


@pytest.mark.parametrize(("done", "output", "calls", "thoughts"), [row[1:] for row in NAMED],
                         ids=[row[0] for row in NAMED])  # fmt: skip
def test_an_item_counts_once_whatever_its_upstream_names(
    done: list[Done], output: list[dict[str, object]], calls: list[str], thoughts: list[str]
) -> None:
    assert seen(answer(done, output)) == (calls, thoughts)


def test_a_thought_that_only_the_output_has_the_text_of_is_seen() -> None:
    empty = thought("rs_1", "") | {"encrypted_content": "gAAA"}
    assert seen(answer([(0, empty)], [HM])) == ([], ["hm"])


def test_a_whole_answer_tells_each_item_once() -> None:
    body = json.dumps({"id": "r", "output": [A, A, HM | NO_ID, HM | NO_ID]}).encode()
    assert seen(tapped([body], dialect=RESPONSES, headers=JSON)) == (["a", "a"], ["hm", "hm"])


def test_there_is_a_bound_for_items() -> None:
    told = ToldItems()
    for number in range(2 * MAX_ITEMS):
        item = told_item(number, Item(type="function_call", call_id=str(number)))
        assert item is not None
        assert told.place_of(item) == (number if number < MAX_ITEMS else None)
