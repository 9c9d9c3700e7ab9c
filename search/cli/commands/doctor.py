"""`affinity-search doctor`: why a search does not start or seems stuck, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import AsJson, DataDir, Files, Storage, console, say
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.doctor.check import Check
    from affinity_search.search.doctor.study import Diagnosis
    from affinity_search.storage.database.backend import Backend
    from affinity_search.storage.files import StudyFiles
    from affinity_search.storage.study import StoredStudy


EXAMPLES = (
    "affinity-search doctor digits",
    "affinity-search doctor digits --repair",
)


def doctor(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="A stored study or comparison to check.")
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Free the places of dead workers and end their trials. It first watches for a full lease (120 s).",
        ),
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also compute on the device that a worker would get. Takes some seconds.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
) -> None:
    """Check this machine and the storage; with STUDY also its workers, lost trials and failures.

    Exit code 0: all is well, or there are only warnings. 1: a check failed. 3: no check failed, but lost or half-ended
    trials were found and not repaired.
    """
    if repair and study is None:
        raise typer.BadParameter("--repair works on one study; name it")
    from affinity_search.search.doctor.storage import files_root, open_storage
    from affinity_search.search.doctor.view import show
    from affinity_search.storage.files import StudyFiles

    opening, backend = open_storage(storage, study)
    studies = _studies(backend, study) if backend and study is not None else []
    stored = studies[0] if studies else None
    root = files_root(storage, files)
    checks = []
    for check in _checks(storage, opening, backend, stored, data_dir, root, probe):
        checks.append(check)
        if not as_json:
            show(console(data=True), check)
    treated = []
    for each in studies:
        if len(studies) > 1 and not as_json:
            console(data=True).print(f"\n{each.name}", style="bold", markup=False)
        kept = StudyFiles(root, each.token) if root else None
        treated.append(_treated(each, kept, repair, as_json))
    _end(checks, treated, as_json)


def _studies(backend: Backend, name: str) -> list[StoredStudy]:
    """The study of that name, or those of the comparison of that name."""
    from affinity_search.storage.stored.comparisons import find_comparison
    from affinity_search.storage.study import load_study

    comparison = find_comparison(backend, name)
    return comparison.studies if comparison else [load_study(backend, name)]


def _checks(
    url: str,
    opening: Check,
    backend: Backend | None,
    stored: StoredStudy | None,
    data_dir: Path | None,
    root: Path | None,
    probe: bool,
) -> Iterator[Check]:
    """Show each check as soon as it is done: some take long."""
    from affinity_search.search.doctor import machine
    from affinity_search.search.doctor import storage as database

    yield from machine.check_machine(stored, data_dir, database.driver_package(url))
    if probe:
        yield machine.probe()
    yield opening
    if backend:
        yield from database.check_database(backend)
    if root:
        yield database.check_files(root, stored)


def _treated(stored: StoredStudy, kept: StudyFiles | None, repair: bool, as_json: bool) -> tuple[Diagnosis, list[str]]:
    """The state of the study, and what the repair did. With --repair the state is that after the repair."""
    from affinity_search.search.doctor.repair import Repair
    from affinity_search.search.doctor.study import examine

    diagnosis = examine(stored, kept)
    _show_study(diagnosis, as_json)
    if not repair:
        return diagnosis, []
    repaired = Repair(stored, kept, say).mend(diagnosis)
    if not (repaired or diagnosis.ails or diagnosis.gone):
        say("nothing to repair")
        return diagnosis, []
    if not as_json:
        say("after the repair:")
    diagnosis = examine(stored, kept)
    _show_study(diagnosis, as_json)
    return diagnosis, repaired


def _show_study(diagnosis: Diagnosis, as_json: bool) -> None:
    from affinity_search.search.doctor.view import show, study_checks, study_parts

    for part in () if as_json else (*study_checks(diagnosis), *study_parts(diagnosis)):
        show(console(data=True), part)


def _end(checks: list[Check], treated: list[tuple[Diagnosis, list[str]]], as_json: bool) -> None:
    from affinity_search.search.doctor.view import study_checks

    checks = [*checks, *(check for diagnosis, _ in treated for check in study_checks(diagnosis))]
    failed = any(check.status == "failed" for check in checks)
    ails = any(diagnosis.ails for diagnosis, _ in treated)
    code = Exit.FAILED if failed else Exit.LOST if ails else Exit.DONE
    if as_json:
        studies = [diagnosis.to_dict() | {"repaired": repaired} for diagnosis, repaired in treated]
        found = {
            "checks": [check.to_dict() for check in checks],
            "study": studies[0] if len(studies) == 1 else None,
            "exit_code": code,
        } | ({"studies": studies} if len(studies) > 1 else {})
        typer.echo(json.dumps(found, indent=2))
    raise typer.Exit(code)
