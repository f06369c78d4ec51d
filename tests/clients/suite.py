"""Every method of the ``openai`` client that runs this, against a running installation.

``OPENAI_BASE_URL=… OPENAI_API_KEY=… python -m tests.clients.suite --model ID --other-project ID``. It
needs nothing but the client, so that any version of it can run it, and prints its version and what
came out for each method as JSON. ``--finished`` names a job that has succeeded, where no workers
run; its model is deleted. The api must be able to reach this machine's loopback address with webhooks.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import suppress

import openai
from openai import OpenAI

from tests.clients.answers import check_chat, check_completions, check_models
from tests.clients.fine_tuning import check_jobs, check_permissions
from tests.clients.methods import PASSED, Methods, Stopped, methods_of
from tests.clients.responses import check_responses
from tests.clients.stored_files import check_batches, check_files, check_uploads
from tests.clients.webhooks import check_webhooks

NOT_TRIED = "not tried"


def main() -> int:
    """Try all; the status tells whether every method has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a base model of the installation")
    parser.add_argument("--other-project", required=True, help="a project other than the key's")
    parser.add_argument("--finished", help="a job that has succeeded")
    arguments = parser.parse_args()
    with OpenAI(max_retries=0) as client:
        results = try_all(client, arguments.model, arguments.other_project, arguments.finished)
    sys.stdout.write(json.dumps({"version": openai.__version__, "methods": results}) + "\n")
    return 0 if set(results.values()) == {PASSED} else 1


def try_all(client: OpenAI, model: str, other_project: str, finished: str | None) -> dict[str, str]:
    """What came out for each method of this client; arguments are those of the command."""
    methods = Methods()

    def fine_tuning_and_models() -> None:
        tuned, checkpoint = check_jobs(client, methods, model, finished)
        check_permissions(client, methods, checkpoint, other_project)
        check_models(client, methods, model, tuned)

    checks: tuple[Callable[[], None], ...] = (
        lambda: check_files(client, methods),
        lambda: check_uploads(client, methods),
        lambda: check_chat(client, methods, model),
        lambda: check_responses(client, methods, model),
        lambda: check_completions(client, methods, model),
        lambda: check_batches(client, methods, model, workers=finished is None),
        lambda: check_webhooks(client, methods),
        fine_tuning_and_models,
    )
    for check in checks:
        with suppress(Stopped):
            check()
    return {name: methods.results.get(name, NOT_TRIED) for name in methods_of(client)}


if __name__ == "__main__":
    sys.exit(main())
