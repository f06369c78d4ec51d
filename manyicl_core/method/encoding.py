"""Text to tokens: one encoder for training, evaluation and hosting.

Every example is encoded on its own, as prompt ids + answer ids + stop id, and examples are
joined as ids, never as text, so that no token merges across a boundary (design, section 3).
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manyicl_core.method.tasks import Example, Turn

ENCODER_VERSION = 1

INSTRUCTION_TEMPLATE = "{instruction}\n\n"
PROMPT_TEMPLATE = "Input: {input}\nOutput:"
ANSWER_TEMPLATE = " {output}"
STOP = "\n"
SEPARATOR = "\n"

ANSWER_ENDS = ("\r\n", STOP)
"""What ends an answer where it is looked for in the text: a token may hold the line break and more."""


def template_hash() -> str:
    """SHA-256 over the encoder's version and templates; it travels with every adapter."""
    parts = [ENCODER_VERSION, INSTRUCTION_TEMPLATE, PROMPT_TEMPLATE, ANSWER_TEMPLATE, STOP, SEPARATOR]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# Every kind of line break has an escape of its own; CRLF is one, as a model knows it best. A letter alone stands for
# the line feed only: what a base model writes unescaped, as \frac or \rho, is seldom one of these.
ESCAPES = {
    "\\": r"\\",
    "\r\n": r"\r\n",
    "\n": r"\n",
    "\v": r"\x0b",
    "\f": r"\x0c",
    "\r": r"\x0d",
    "\x85": r"\x85",
    "\u2028": r"\u2028",
    "\u2029": r"\u2029",
}
_UNESCAPES = {escape: text for text, escape in ESCAPES.items()}
_TO_ESCAPE = re.compile("|".join(map(re.escape, ESCAPES)))
_TO_UNESCAPE = re.compile("|".join(map(re.escape, _UNESCAPES)))
_STARTED = {escape[:length] for escape in _UNESCAPES for length in range(1, len(escape))}
_LONGEST_STARTED = max(map(len, _STARTED))

ESCAPE_TAILS = frozenset("".join(escape[1:] for escape in _UNESCAPES))
"""The characters that stand in an escape behind its backslash."""


def escape_answer(text: str) -> str:
    r"""An answer on one line: line breaks of every kind and backslashes are escaped; a line break ends an answer."""
    return _TO_ESCAPE.sub(lambda match: ESCAPES[match[0]], text)


def unescape_answer(text: str) -> str:
    """The inverse of ``escape_answer``; a backslash before anything else stays."""
    return _TO_UNESCAPE.sub(lambda match: _UNESCAPES[match[0]], text)


def split_escape(text: str) -> tuple[str, str]:
    """``text`` up to an escape that its end has only begun, and that beginning: what follows says what it means."""
    whole = max((match.end() for match in _TO_UNESCAPE.finditer(text)), default=0)
    for length in range(min(_LONGEST_STARTED, len(text) - whole), 0, -1):
        if text[-length:] in _STARTED:
            return text[:-length], text[-length:]
    return text, ""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of one demonstration.

    Attributes:
        prompt: up to where the answer starts; earlier exchanges of a conversation are part of it.
        answer: the answer, which ends with the stop id.
        targets: half-open ``(start, end)`` positions, counted from the prompt's start, of the
            answers that may be targets: those of earlier exchanges, then ``answer``.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    targets: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes tasks for one tokenizer.

    ``tokenize`` maps text to ids with special tokens neither added nor recognised in the text;
    ``start`` holds the ids that the tokenizer puts before every text (a BOS id, or none);
    ``stop`` is the id that ends an answer, a line break (docs/decisions/0003).
    """

    tokenize: Callable[[str], list[int]]
    start: tuple[int, ...]
    stop: int

    def instruction(self, text: str) -> list[int]:
        """Ids that open a sequence: the start ids and, where there is one, the instruction."""
        if not text.strip():
            return list(self.start)
        return [*self.start, *self.tokenize(INSTRUCTION_TEMPLATE.format(instruction=text.strip()))]

    def query(self, text: str, earlier: Sequence[Turn] = ()) -> list[int]:
        """Prompt ids of one input after ``earlier`` exchanges, up to where its answer starts."""
        return [*self._conversation(earlier)[0], *self._input(text)]

    def answer(self, text: str) -> list[int]:
        """Answer ids of one output, the stop id included."""
        return [*self.tokenize(ANSWER_TEMPLATE.format(output=escape_answer(text.strip()))), self.stop]

    def example(self, example: Example) -> EncodedExample:
        """One demonstration."""
        ids, targets = self._conversation(example.earlier)
        prompt = [*ids, *self._input(example.input)]
        answer = self.answer(example.output)
        if example.trained:
            targets.append((len(prompt), len(prompt) + len(answer)))
        return EncodedExample(tuple(prompt), tuple(answer), tuple(targets))

    def _input(self, text: str) -> list[int]:
        return self.tokenize(PROMPT_TEMPLATE.format(input=text.strip()))

    def _conversation(self, turns: Sequence[Turn]) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of whole exchanges, each as a demonstration is encoded, and the spans of their targets."""
        ids: list[int] = []
        targets: list[tuple[int, int]] = []
        for turn in turns:
            ids += self._input(turn.input)
            answer = self.answer(turn.output)
            if turn.trained:
                targets.append((len(ids), len(ids) + len(answer)))
            ids += [*answer, *self.separator()]
        return ids, targets

    def separator(self) -> list[int]:
        """Ids between one demonstration and the next prompt."""
        return self.tokenize(SEPARATOR)

    def context(self, instruction: str, demonstrations: Sequence[EncodedExample]) -> list[int]:
        """Ids of a context: the instruction and whole demonstrations, ready for a query.

        The result is a proper prefix of every training sequence that starts with the same
        demonstrations, so a hosted prompt is token for token what was trained.
        """
        ids = self.instruction(instruction)
        for demonstration in demonstrations:
            ids += [*demonstration.prompt, *demonstration.answer, *self.separator()]
        return ids
