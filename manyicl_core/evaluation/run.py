"""One evaluation from its spec: every measurement of one model, then the next model."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from manyicl_core.base_models.load import compute_device, compute_dtype
from manyicl_core.base_models.tokenizer import load_tokenizer
from manyicl_core.contract.evaluation_spec import EvaluationSpec, Point
from manyicl_core.contract.progress import CurveResult, EvaluationResult, PlainTextResult
from manyicl_core.evaluation.curves import measure_curve
from manyicl_core.evaluation.models import Models
from manyicl_core.evaluation.plain_text import measure_plain_text
from manyicl_core.evaluation.points import QuerySet, TextModel, measure_points


def evaluate(spec: EvaluationSpec, folder: Path) -> Iterator[EvaluationResult | CurveResult | PlainTextResult]:
    """Measure everything that ``spec`` asks for; files go into ``folder``.

    Points are grouped by model, so that a model is loaded once, and by task.
    """
    torch.set_num_threads(spec.threads)
    device = compute_device()
    base = Path(spec.base_model_folder)
    loaded = load_tokenizer(base)
    tokenizer = TextModel(loaded.encoder, loaded.raw, loaded.line_breaks)
    models = Models(base, spec.models, device, compute_dtype(device))
    tasks = {task.definition.name: task for task in spec.tasks}
    points: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in spec.points:
        points[point.model][point.task].append(point)
    for name in sorted((model.name for model in spec.models), key=models.load_order):
        curves = [curve.task for curve in spec.curves if curve.model == name]
        if not (name in points or curves or name in spec.plain_text):
            continue
        model = models.use(name)
        for task, asked in points[name].items():
            queries = QuerySet(tasks[task], spec.queries, tokenizer)
            yield from measure_points(model, queries, asked, spec.draws, spec.seed, folder)
        for task in curves:
            yield measure_curve(
                model, name, tasks[task], tokenizer.encoder, spec.curve_shots, spec.queries, spec.draws, spec.seed
            )
        if name in spec.plain_text:
            yield measure_plain_text(model, name, tokenizer.encoder)
