"""Run one evaluation: ``python -m manyicl_core.evaluation FOLDER``; ``FOLDER/spec.json`` says what."""

import sys
from collections.abc import Iterator
from pathlib import Path

from manyicl_core.job_process import importing_torch, reporting_failed_imports, run_reporting

with importing_torch(), reporting_failed_imports():
    from manyicl_core.contract.evaluation_spec import EvaluationSpec
    from manyicl_core.contract.progress import Message
    from manyicl_core.evaluation.run import evaluate


def main(folder: Path) -> int:
    """Run the evaluation over ``folder``."""
    return run_reporting(_evaluate(folder))


def _evaluate(folder: Path) -> Iterator[Message]:
    spec = EvaluationSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    yield from evaluate(spec, folder)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
