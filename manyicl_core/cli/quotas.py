"""``manyicl quotas``: what projects may keep, queue, train and ask. For the operator, on the database itself."""

from typing import Annotated

import typer

from manyicl_core.cli.output import fail, out
from manyicl_core.settings import MissingSetting, get_settings, required

quotas_app = typer.Typer(help="What projects may keep, queue, train and ask.", no_args_is_help=True)

Project = Annotated[str, typer.Option(help="The project's name.")]


@quotas_app.command("show")
def quotas_show(project: Project = "default") -> None:
    """Print a project's quotas, and how much of them is used."""
    _need_database()
    from manyicl_core.store.projects.service import find_project
    from manyicl_core.store.quotas.schemas import quotas_object
    from manyicl_core.store.session import transaction

    with transaction() as session:
        found = find_project(session, project)
        if found is None:
            fail(f"there is no project {project!r}")
        quotas = quotas_object(session, found.id)
    for quota in quotas.data:
        used = "" if quota.used is None else f"  {quota.used} used"
        out.print(f"{quota.name:<24}{quota.limit:>20}{used}")


@quotas_app.command("set")
def quotas_set(
    name: Annotated[str, typer.Argument(help="Such as stored_bytes; `manyicl quotas show` lists them.")],
    limit: Annotated[str, typer.Argument(help="A number, or `default` for the installation's setting.")],
    project: Project = "default",
) -> None:
    """Give a project a quota of its own."""
    _need_database()
    from manyicl_core.store.projects.service import find_project
    from manyicl_core.store.quotas.service import MOST, QUOTAS, set_quota
    from manyicl_core.store.session import transaction

    quota = next((known for known in QUOTAS if known == name), None)
    if quota is None:
        fail(f"there is no quota {name!r}; known are {', '.join(QUOTAS)}")
    if limit != "default" and not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(MOST))):
        fail(f"{limit!r} is neither a number of at most {len(str(MOST))} digits nor `default`")
    with transaction() as session:
        found = find_project(session, project)
        if found is None:
            fail(f"there is no project {project!r}")
        set_quota(session, found.id, quota, None if limit == "default" else int(limit))


def _need_database() -> None:
    try:
        required(get_settings(), "database_url")
    except MissingSetting as error:
        fail(str(error))
