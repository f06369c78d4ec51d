"""``manyicl projects`` and ``manyicl keys``: projects and keys of a running service."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from manyicl_core.cli.connection import CONNECTION_FILE, ServiceFailed, find_service, open_client
from manyicl_core.cli.output import fail, note, out
from manyicl_core.cli.projects_client import ProjectsClient, keys_table, projects_table

projects_app = typer.Typer(help="Projects, the tenants of an installation.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys of projects.", no_args_is_help=True)

Project = Annotated[str | None, typer.Option(help="Name or id; not needed where the key sees only one.")]
KeyId = Annotated[str, typer.Argument(help="The key's id, as `manyicl keys list` shows it.")]


@projects_app.callback()
@keys_app.callback()
def _remember_service(
    context: typer.Context,
    connection: Annotated[
        Path, typer.Option(help="Where `manyicl up` wrote the service's URL and key.")
    ] = CONNECTION_FILE,
    base_url: Annotated[str | None, typer.Option(help="The service's URL.", envvar="OPENAI_BASE_URL")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="A key with the scope that this needs.", envvar="OPENAI_API_KEY")
    ] = None,
) -> None:
    context.obj = (connection, base_url, api_key)


@contextmanager
def _service(context: typer.Context) -> Iterator[ProjectsClient]:
    try:
        with open_client(*find_service(*context.obj)) as client:
            yield ProjectsClient(client)
    except ServiceFailed as error:
        fail(str(error))


@projects_app.command("create")
def projects_create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'; a part of its models' ids.")],
) -> None:
    """Make a project and print its id; `manyicl keys create --project` makes its first key."""
    with _service(context) as service:
        out.print(service.create_project(name)["id"], markup=False)


@projects_app.command("list")
def projects_list(context: typer.Context) -> None:
    """Show the projects, archived ones too."""
    with _service(context) as service:
        out.print(projects_table(service.list_projects()))


@projects_app.command("archive")
def projects_archive(
    context: typer.Context, project: Annotated[str, typer.Argument(help="The project's name or id.")]
) -> None:
    """Close a project: its keys open nothing any more; nothing is deleted."""
    with _service(context) as service:
        note(f"{service.archive_project(project)['name']} is archived")


@keys_app.command("create")
def keys_create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write, inference or admin; may be repeated. Without: the first three."),
    ] = None,
    project: Project = None,
) -> None:
    """Make a key and print its secret, once."""
    with _service(context) as service:
        _tell(service.create_key(project, name, scope or None))


@keys_app.command("list")
def keys_list(context: typer.Context, project: Project = None) -> None:
    """Show a project's keys, without their secrets."""
    with _service(context) as service:
        out.print(keys_table(service.list_keys(project)))


@keys_app.command("rotate")
def keys_rotate(
    context: typer.Context,
    key_id: KeyId,
    grace_seconds: Annotated[int, typer.Option(help="The old secret holds so much longer.", min=0)] = 0,
    project: Project = None,
) -> None:
    """Make a key in the place of another one, and print its secret, once."""
    with _service(context) as service:
        _tell(service.rotate_key(project, key_id, grace_seconds))


@keys_app.command("revoke")
def keys_revoke(context: typer.Context, key_id: KeyId, project: Project = None) -> None:
    """End a key, at once and for ever."""
    with _service(context) as service:
        service.revoke_key(project, key_id)
    note(f"{key_id} is revoked")


def _tell(key: dict[str, Any]) -> None:
    note(f"{key['id']} with the scopes {', '.join(key['scopes'])}; its secret is shown only now:")
    out.print(key["value"], markup=False)
