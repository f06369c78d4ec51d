"""``manyicl``: start the service or one of its processes, plan jobs, pull models, make keys."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.child_process import engine_environment, passive_threads
from manyicl_core.cli.addresses import Address
from manyicl_core.cli.connection import CONNECTION_FILE, ServiceFailed, find_service
from manyicl_core.cli.output import fail, out
from manyicl_core.cli.projects import keys_app, projects_app
from manyicl_core.cli.quotas import quotas_app
from manyicl_core.scratch import hold_scratch
from manyicl_core.settings import MissingSetting, Settings, WrongSettings, get_settings, required

if TYPE_CHECKING:
    from manyicl_core.base_models.check import Verdict

app = typer.Typer(name="manyicl", no_args_is_help=True)
models_app = typer.Typer(help="Base models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(projects_app, name="projects")
app.add_typer(keys_app, name="keys")
app.add_typer(quotas_app, name="quotas")

_PROCESS_SETTINGS = ("database_url", "broker_url", "storage_url", "engine_url", "secret_key")


@app.callback()
def check_settings() -> None:
    """Many-shot in-context fine-tuning as a service."""
    try:
        get_settings()
    except WrongSettings as error:
        fail(str(error))


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("manyicl-data"),
    host: Annotated[
        str, typer.Option(help="Address that the API listens on; 0.0.0.0 for all.", envvar="MANYICL_HOST")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the API.", min=1, max=65535, envvar="MANYICL_PORT")] = 8000,
) -> None:
    """Start the whole service in the foreground: PostgreSQL, Valkey, migrations, engine, api, workers."""
    from manyicl_core.cli.base_model import BaseModelRefused
    from manyicl_core.cli.up import CannotStart, run_service

    try:
        run_service(data_dir, Address(host, port), out)
    except (CannotStart, BaseModelRefused) as error:
        fail(str(error))


@app.command()
def plan(
    body: Annotated[Path, typer.Argument(help="JSON file with a job's body; its files may be local paths.")],
    connection: Annotated[
        Path, typer.Option(help="Where `manyicl up` wrote the service's URL and key.")
    ] = CONNECTION_FILE,
    base_url: Annotated[str | None, typer.Option(help="The service's URL.", envvar="OPENAI_BASE_URL")] = None,
    api_key: Annotated[str | None, typer.Option(help="Its API key.", envvar="OPENAI_API_KEY")] = None,
) -> None:
    """Show what a job would do and take, before it is queued."""
    from manyicl_core.cli.plan import print_plan, request_plan

    try:
        print_plan(request_plan(body, *find_service(connection, base_url, api_key)), out)
    except ServiceFailed as error:
        fail(str(error))


@app.command()
def api() -> None:
    """Start the REST API alone."""
    _settings(*_PROCESS_SETTINGS)
    _become(passive_threads, "api.serve")


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(help="Jobs at a time; one a GPU.", min=1)] = 1,
) -> None:
    """Start a worker alone: it takes jobs and runs their trainers."""
    _settings("database_url", "broker_url", "storage_url")
    _ready_base_model()
    _hold_base_model()
    _become_celery("worker.celery_app", "--pool=prefork", f"--concurrency={concurrency}")


@app.command()
def hosting(
    concurrency: Annotated[int, typer.Option(help="Contexts at a time.", min=1)] = 8,
) -> None:
    """Start a hosting worker alone: it prepares what the engine serves, and never waits behind a job."""
    _settings(*_PROCESS_SETTINGS)
    _hold_base_model()
    from manyicl_core.store.hints import HOSTING_QUEUE, HOSTING_WORKER

    _become_celery(
        "worker.hosting_app",
        "--pool=threads",
        f"--concurrency={concurrency}",
        f"--queues={HOSTING_QUEUE}",
        f"--hostname={HOSTING_WORKER}@%h",
    )


@app.command()
def engine() -> None:
    """Start the inference engine alone."""
    _settings("storage_url")
    _ready_base_model()
    _become(engine_environment, "manyicl_core.inference")


@app.command()
def migrate() -> None:
    """Bring the database to the newest shape."""
    settings = _settings("database_url")
    from manyicl_core.store.migrate import migrate as apply

    apply(required(settings, "database_url"))
    out.print("the database is up to date")


@models_app.command("pull")
def models_pull() -> None:
    """Get the base model's files, once, from the first source that answers, and check them."""
    _use_scratch()
    _ready_base_model(pull=True)


@models_app.command("check")
def models_check() -> None:
    """Say whether the base model can be used: what is computed of it here, beside transformers."""
    verdict = _ready_base_model()
    out.print(f"{known_base_models()[0].id} ({verdict.model_type}) is computed right here", markup=False)


@keys_app.command("bootstrap")
def keys_bootstrap(
    project: Annotated[str, typer.Option(help="The project that the key belongs to; made if need be.")] = "default",
) -> None:
    """Make a key with every scope straight in the database, and print it, once.

    It is the first key of an installation: all other keys are made with it over the API.
    """
    _settings("database_url", "secret_key")
    from manyicl_core.store.projects.schemas import SCOPES
    from manyicl_core.store.projects.service import create_key, get_or_create_project
    from manyicl_core.store.session import transaction

    with transaction() as session:
        secret = create_key(session, get_or_create_project(session, project), SCOPES)
    out.print(secret, markup=False)


def _ready_base_model(pull: bool = False) -> "Verdict":
    from manyicl_core.cli.base_model import BaseModelRefused, ready_base_model

    try:
        return ready_base_model(pull, lambda text: out.print(text, markup=False))
    except BaseModelRefused as error:
        fail(str(error))


def _hold_base_model() -> None:
    from manyicl_core.cli.base_model import BaseModelRefused, hold_files

    try:
        hold_files()
    except BaseModelRefused as error:
        fail(str(error))


def _settings(*needed: str) -> Settings:
    settings = get_settings()
    try:
        for name in needed:
            required(settings, name)
    except MissingSetting as error:
        fail(str(error))
    return settings


def _use_scratch() -> None:
    """Let this process, and what it turns into, keep everything temporary in a folder of its own, where one is set."""
    root = get_settings().work_folder
    if root is not None:
        folder = str(hold_scratch(root))
        os.environ |= {"MANYICL_WORK_FOLDER": folder, "TMPDIR": folder}


def _become_celery(app_module: str, *arguments: str) -> NoReturn:
    """Turn this process into a Celery worker whose log is ours alone.

    What Celery says in words of its own, such as "Warm shutdown", goes to standard output; our log goes to standard
    error.
    """
    if get_settings().log_json:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
    quiet = ("--without-gossip", "--without-mingle", "--loglevel=warning")
    _become(passive_threads, "celery", "--quiet", "-A", app_module, "worker", *arguments, *quiet)


def _become(environment: Callable[[dict[str, str]], dict[str, str]], module: str, *arguments: str) -> NoReturn:
    """Turn this process into ``python -m module``: signals reach it without a go-between."""
    _use_scratch()
    command = [sys.executable, "-m", module, *arguments]
    os.execve(sys.executable, command, environment(dict(os.environ)))  # noqa: S606


if __name__ == "__main__":
    app()
