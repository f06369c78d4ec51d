"""Metrics over predicted and gold answers, each from 0 to 1.

Canonically equal texts (Unicode's composed and decomposed forms) are one text to all of them.
"""

import re
import string
from collections import Counter
from collections.abc import Hashable
from decimal import Decimal
from functools import lru_cache
from typing import Any

import regex

from manyicl_core.method.equality import canonical, same_text
from manyicl_core.method.tasks import Metric


def score(metric: Metric, predictions: list[str], references: list[str]) -> float:
    """``metric`` over all pairs; both lists are equally long and not empty.

    ``macro_f1`` is the unweighted mean of the F1 of every label that is predicted or gold; every
    other metric is the mean of its ``item_score``.
    """
    assert predictions and len(predictions) == len(references)
    if metric == "macro_f1":
        from sklearn.metrics import f1_score

        gold, predicted = ([canonical(text.strip()) for text in texts] for texts in (references, predictions))
        return float(f1_score(gold, predicted, average="macro", zero_division=0.0))
    pairs = zip(predictions, references, strict=True)
    return sum(item_score(metric, prediction, reference) for prediction, reference in pairs) / len(predictions)


def item_score(metric: str, prediction: str, reference: str) -> float:
    """The score of one pair; that of ``macro_f1``, which has none, is the exact match."""
    if metric == "f1":
        return token_f1(prediction, reference)
    if metric == "rouge_l":
        return rouge_l(prediction, reference)
    if metric == "numeric":
        return numeric_match(prediction, reference)
    return float(same_text(prediction.strip(), reference.strip()))


def answer_key(metric: str, text: str) -> Hashable:
    """What two answers have in common that the metric does not tell apart."""
    if metric == "numeric" and (number := _last_number(text)) is not None:
        return number
    if metric == "f1" and (words := _squad_words(text)):
        return tuple(sorted(words))
    return canonical(text.strip())


def token_f1(prediction: str, reference: str) -> float:
    """SQuAD's F1: overlap of words, without case, punctuation and articles (Rajpurkar et al. 2016)."""
    predicted, gold = _squad_words(prediction), _squad_words(reference)
    shared = sum((Counter(predicted) & Counter(gold)).values())
    if not predicted or not gold:
        return float(predicted == gold)
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F-measure with stemming (Lin 2004), over the words of any script.

    Where either text has no word (``👍``), it is the exact match.
    """
    if not (_rouge_words(prediction) and _rouge_words(reference)):
        return float(same_text(prediction.strip(), reference.strip()))
    return float(_rouge().score(reference, prediction)["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    """The reference implementation, but for its tokenizer, which knows no letters but a to z."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    original = DefaultTokenizer(use_stemmer=True)

    class Words:
        def tokenize(self, text: str) -> list[str]:
            words = _rouge_words(text)
            return [stemmed for word in words for stemmed in (original.tokenize(word) if word.isascii() else [word])]

    return RougeScorer(["rougeL"], tokenizer=Words())


def _rouge_words(text: str) -> list[str]:
    """Runs of letters, their marks and digits, in lower case."""
    words: list[str] = _WORD.findall(canonical(text).lower())
    return words


# Scripts that put no space between words: each letter, with its marks, is a word.
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"(?V1)[[{_SPACELESS}]&&\p{{L}}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[[{_SPACELESS}]&&\p{{L}}]]+")


def numeric_match(prediction: str, reference: str) -> float:
    """1 where the last number in the prediction is the last number in the reference, else 0.

    A number may have a minus sign, also before a currency sign, commas between thousands and
    decimals after a point; units and punctuation around it do not count: ``-$1,200.50.`` is
    ``-1200.5``. A dash between two numbers is no sign. Where either text has no number: 0.
    """
    predicted, gold = _last_number(prediction), _last_number(reference)
    return float(predicted is not None and predicted == gold)


def _squad_words(text: str) -> list[str]:
    text = "".join(character for character in canonical(text).lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _last_number(text: str) -> Decimal | None:
    number = None
    for sign, digits in _NUMBER.findall(text):
        number = Decimal(digits.replace(",", "")) * (-1 if sign else 1)
    return number


_NUMBER = re.compile(r"(?:(?<![\w)])([-−])[$€£]?)?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")
