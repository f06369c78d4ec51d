"""The messages of a chat behind demonstrations: a query after earlier exchanges."""

from collections.abc import Sequence
from dataclasses import dataclass

from manyicl_core.answers.chat_request import Message
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.equality import same_text
from manyicl_core.method.tasks import Turn

_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is asked behind demonstrations.

    Attributes:
        instruction: what the system message says, or None.
        earlier: the exchanges before the query.
    """

    instruction: str | None
    earlier: tuple[Turn, ...]
    query: str

    def check_instruction(self, instruction: str) -> None:
        """Refuse a system message other than ``instruction``, which stands before the demonstrations.

        Raises:
            InvalidRequest: it says something else.
        """
        if self.instruction is not None and not same_text(self.instruction.strip(), instruction.strip()):
            raise InvalidRequest(
                "messages.0.content: the demonstrations stand behind the instruction of their task or context, and "
                "this system message is another; leave it out, or give the instruction to the task or context",
                "messages.0.content",
            )


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """The conversation that ``messages`` hold.

    Raises:
        InvalidRequest: they do not end with a query, user and assistant do not take turns, or a user says nothing.
    """
    instruction = messages[0].text() if messages[0].role in _SYSTEM_ROLES else None
    first = 0 if instruction is None else 1
    *before, query = _texts(messages, first)
    earlier = [Turn(input=asked, output=answered) for asked, answered in zip(before[::2], before[1::2], strict=True)]
    return Conversation(instruction, tuple(earlier), query)


def _texts(messages: Sequence[Message], first: int) -> list[str]:
    """What user and assistant say in turn from message number ``first`` on, the query at last."""
    for index, message in enumerate(messages[first:], first):
        due = "assistant" if (index - first) % 2 else "user"
        if message.role != due:
            raise InvalidRequest(
                f"messages.{index}.role: {message.role} where {due} is due; behind demonstrations one system message "
                "may come first, then user and assistant take turns: join neighbours of one role into one message",
                f"messages.{index}.role",
            )
        # The model may have answered nothing, and its message can be sent back.
        if due == "user" and not message.text().strip():
            raise InvalidRequest(
                f"messages.{index}.content: this message is empty; give it some text", f"messages.{index}.content"
            )
    if (len(messages) - first) % 2 == 0:
        raise InvalidRequest(
            "messages: behind demonstrations the last message is the query; end with a user message", "messages"
        )
    return [message.text() for message in messages[first:]]
