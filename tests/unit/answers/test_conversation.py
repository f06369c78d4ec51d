"""A chat's messages as what stands behind demonstrations."""

from typing import Any

import pytest

from manyicl_core.answers.chat_request import Message
from manyicl_core.answers.conversation import Conversation, read_conversation
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.tasks import Turn


def conversation(*messages: tuple[str, Any]) -> Conversation:
    said = [Message.model_validate({"role": role, "content": content}) for role, content in messages]
    return read_conversation(said)


def test_the_last_message_is_the_query_and_exchanges_stand_before_it():
    assert conversation(("user", "a")) == Conversation(None, (), "a")
    parts = [{"type": "text", "text": "e"}, {"type": "text", "text": "f"}]
    told = conversation(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", ""), ("user", parts))
    assert told == Conversation(None, (Turn(input="a", output="b"), Turn(input="c", output="")), "ef")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_first_message_may_say_the_instruction_again_but_no_other(role: str):
    told = conversation((role, " Name the colour.\n"), ("user", "a"))
    assert (told.earlier, told.query) == ((), "a")
    told.check_instruction("Name the colour. ")
    for other in ("", "Name the color."):
        with pytest.raises(InvalidRequest, match="leave it out") as refused:
            told.check_instruction(other)
        assert refused.value.param == "messages.0.content"
    conversation(("user", "a")).check_instruction("Name the colour.")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([("system", "x")], "messages"),
        ([("user", "a"), ("assistant", "b")], "messages"),
        ([("assistant", "b"), ("user", "a")], "messages.0.role"),
        ([("user", "a"), ("user", "b")], "messages.1.role"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], "messages.2.role"),
        ([("system", "x"), ("developer", "x"), ("user", "a")], "messages.1.role"),
        ([("user", "a"), ("system", "x"), ("user", "b")], "messages.1.role"),
        ([("user", " \n")], "messages.0.content"),
        ([("system", "x"), ("user", ""), ("assistant", "b"), ("user", "a")], "messages.1.content"),
    ],
)
def test_messages_in_another_order_or_without_text_are_refused(messages: list[tuple[str, str]], param: str):
    with pytest.raises(InvalidRequest, match=param) as refused:
        conversation(*messages)
    assert refused.value.param == param
