"""Metrics over predicted and gold answers, each from 0 to 1."""

import re
import string
from collections import Counter

from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score

from manyicl_core.method.tasks import Metric


def score(metric: Metric, predictions: list[str], references: list[str]) -> float:
    """The mean of ``metric`` over the pairs; both lists are equally long and not empty."""
    assert predictions and len(predictions) == len(references)
    if metric in ("accuracy", "exact_match"):
        return float(accuracy_score([text.strip() for text in references], [text.strip() for text in predictions]))
    one = token_f1 if metric == "f1" else rouge_l
    pairs = zip(predictions, references, strict=True)
    return sum(one(prediction, reference) for prediction, reference in pairs) / len(predictions)


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
    """ROUGE-L F-measure with stemming (Lin 2004)."""
    return float(_ROUGE.score(reference, prediction)["rougeL"].fmeasure)


def _squad_words(text: str) -> list[str]:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


_ROUGE = RougeScorer(["rougeL"], use_stemmer=True)
