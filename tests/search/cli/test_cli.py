"""The commands: data on stdout, people's text on stderr, one line for every mistake, any name for a study."""

import io
import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Cli, Start
from making import ARTICLE, TINY, make, train, trained
from sqlalchemy.engine import make_url
from waiting import until

from affinity_search.search.cli import main
from affinity_search.search.cli.app import COMMANDS, studies
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import load_study

HOSTILE_NAMES = [
    """it's "quoted" \\ `backs` 🦉 ünï 研究""",
    "2024",
    "[bold]red[bold] :smile:",
    "{brace} %s %(x)s $HOME ;ls",
    " spaces around ",
    "mnist",
    "x" * 200,
]


class TestNames:
    @pytest.mark.usefixtures("fake_workers")
    @pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
    def test_any_name_goes_through_launch_status_and_export(
        self, name: str, sqlite_url: str, cli: Cli, tmp_path: Path
    ) -> None:
        at = ("--storage", sqlite_url)
        launched = cli("launch", TINY, f"--name={name}", "--trials", "1", "--devices", "cpu", *at)
        assert "1 of 1 trials done: 1 complete" in launched.err
        assert name in cli("status", *at, "--", name).out
        everything = cli("status", *at)
        assert name[:40] in everything.out, "long ones are folded"
        (found,) = json.loads(cli("status", "--json", *at).out)
        assert found["study"] == name
        assert json.loads(cli("export", *at, "--", name).out)["study"] == name

    @pytest.mark.parametrize(
        ("name", "allowed"),
        [
            ("x" * 201, "1 to 200 printable characters"),
            ("new\nline", "1 to 200 printable characters"),
            ("bell\x07", "1 to 200 printable characters"),
            ("\x1b[31mred", "1 to 200 printable characters"),
            ("like a file.toml", "a name that does not end in .toml"),
            ("like a file.Toml", "a name that does not end in .toml"),
            ("", "1 to 200 printable characters"),
            ("  ", "a name that has more than blanks"),
            ("-rf", "a name that does not begin with -"),
            ("--help", "a name that does not begin with -"),
            (".", "a name that is no path"),
            ("..", "a name that is no path"),
            ("../../etc/passwd", "a name that is no path"),
        ],
    )
    def test_names_that_are_refused(self, name: str, allowed: str, sqlite_url: str, cli: Cli) -> None:
        ran = cli("launch", TINY, f"--name={name}", "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert allowed in ran.err
        assert "\x1b" not in ran.err
        assert not Path(make_url(sqlite_url).database or "").exists(), "a mistake leaves no database behind"


class TestStatus:
    @pytest.fixture
    def at(self, sqlite: Backend, sqlite_url: str) -> tuple[str, str]:
        trained(sqlite)
        make(sqlite, "flattered", overrides=ARTICLE)
        return "--storage", sqlite_url

    def test_all_studies(self, at: tuple[str, str], cli: Cli) -> None:
        ran = cli("status", *at)
        assert ran.err == ""
        lines = ran.out.splitlines()
        assert [line.split()[0] for line in lines] == ["study", "flattered", "tiny"]
        assert "article" in lines[1]
        assert "4/4" in lines[2]

    def test_all_studies_as_json(self, at: tuple[str, str], cli: Cli) -> None:
        ran = cli("status", "--json", *at)
        assert ran.err == ""
        found = {one["study"]: one for one in json.loads(ran.out)}
        assert (found["tiny"]["counts"]["used"], found["flattered"]["best"]) == (4, None)

    def test_one_study(self, at: tuple[str, str], cli: Cli) -> None:
        ran = cli("status", "tiny", *at)
        assert ran.err == ""
        assert "4 of 4 trials done" in ran.out
        assert "created: 4 places, protocol holdout" in ran.out
        assert "precision: settled as float32" in ran.out

    def test_one_study_as_json(self, at: tuple[str, str], cli: Cli) -> None:
        found = json.loads(cli("status", "tiny", "--json", *at).out)
        assert found["counts"] == {
            "total": 4,
            "used": 4,
            "running": 0,
            "complete": 4,
            "pruned": 0,
            "failed": 0,
            "closed": 0,
        }
        assert found["best"]["macro_f1"] == pytest.approx(1 - found["best"]["value"])
        assert [event["kind"] for event in found["history"]] == ["created", "precision"]
        assert found["definition"]["training"]["epochs"] == 2
        assert found["test_openings"] == []

    def test_the_storage_by_environment(self, at: tuple[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AFFINITY_SEARCH_STORAGE", at[1])
        assert "tiny" in cli("status").out

    def test_watching_ends_when_the_places_are_used(self, sqlite: Backend, sqlite_url: str, start: Start) -> None:
        study = make(sqlite)
        watch = start("status", "tiny", "--watch", "--storage", sqlite_url)
        until(lambda: "0 of 4 trials done" in watch.said, "the first look")
        assert watch.process.poll() is None
        train(study)
        assert watch.ended() == 0
        assert "4 of 4 trials done" in watch.said

    def test_watching_is_left_by_an_interrupt(self, sqlite: Backend, sqlite_url: str, start: Start) -> None:
        make(sqlite)
        watch = start("status", "tiny", "--watch", "--storage", sqlite_url)
        until(lambda: "0 of 4 trials done" in watch.said, "the first look")
        watch.interrupt()
        assert watch.ended() == 130
        assert "Traceback" not in watch.said


class TestMistakes:
    def test_a_study_that_is_not_there(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        make(sqlite)
        for command in (("status",), ("export",), ("evaluate",), ("launch",)):
            line = cli(*command, "tinny", "--storage", sqlite_url, fails=True).refused()
            assert "tinny" in line
            assert "tiny" in line.replace("tinny", "")

    def test_all_mistakes_of_a_file_at_once(self, sqlite_url: str, cli: Cli) -> None:
        sets = ("--set", "training.epochs=0", "--set", "training.colour=red", "--set", "nonsense")
        ran = cli("launch", TINY, *sets, "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        for part in ("3 mistakes", "training.epochs", "training.colour", "nonsense"):
            assert part in ran.err
        assert "no database" in cli("status", "--storage", sqlite_url, fails=True).refused(), "nothing was created"

    @pytest.mark.parametrize(
        ("devices", "said"),
        [(("--devices", "abacus"), "abacus"), (("--devices", "gpu"), "GPU"), (("--devices", "tpu"), "TPU")],
    )
    def test_devices_are_looked_for_before_anything_is_stored(
        self, tmp_path: Path, cli: Cli, devices: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", list)
        monkeypatch.setattr("affinity_search.search.devices.kinds.has_tpu", lambda: False)
        ran = cli("launch", TINY, *devices, "--storage", f"sqlite:///{tmp_path}/x.db", fails=True)
        assert said in ran.refused(Exit.UNFIT_DEVICE)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "arguments",
        [
            ("launch",),
            ("launch", "digits", "--workers", "0"),
            ("launch", "digits", "--trials", "0"),
            ("export", "x", "--top", "0"),
            ("evaluate", "x", "--seeds", "0"),
            ("launch", "digits", "--data-dir", "/no/such/folder"),
            ("dance",),
        ],
    )
    def test_misuse_is_exit_code_2(self, arguments: tuple[str, ...], cli: Cli) -> None:
        ran = cli(*arguments, fails=True)
        assert ran.code == 2
        assert "Usage:" in ran.err

    def test_a_database_that_fails_in_the_middle(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        make(sqlite)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE affinity_places")
        line = cli("status", "tiny", "--storage", sqlite_url, fails=True).refused()
        assert line == "the storage failed: no such table: affinity_places; is the database still running and writable?"

    def test_a_bug_is_not_hidden(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr("affinity_search.search.cli.app.app", broken)
        with pytest.raises(ZeroDivisionError):
            cli("--version")

    @pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 1)])
    def test_quiet_ends(self, error: type[BaseException], code: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def ended() -> None:
            raise error

        monkeypatch.setattr("affinity_search.search.cli.app.app", ended)
        ran = cli("--version", fails=True)
        assert (ran.code, ran.out, ran.err) == (code, "", "")


class TestStudies:
    def test_the_list(self, cli: Cli) -> None:
        names = [line.split()[0] for line in cli("studies").out.splitlines()]
        assert names == ["cifar10", "cifar10-article", "digits", "mnist", "mnist-article"]
        assert sorted(json.loads(cli("studies", "--json").out)) == names

    def test_a_shown_study_is_a_study_file(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("studies", "show", "digits")
        assert "images per class (protocol holdout)" in ran.err
        (tmp_path / "mine.toml").write_text(ran.out)
        again = json.loads(cli("studies", "show", str(tmp_path / "mine.toml"), "--json").out)
        assert again["definition"]["data"]["set"] == "digits"
        assert sorted(again["images"]) == ["test", "training", "validation"]

    def test_with_overrides_the_resolved_one_is_shown(self, cli: Cli) -> None:
        ran = cli("studies", "show", TINY, *(part for change in ARTICLE for part in ("--set", change)))
        assert tomllib.loads(ran.out)["protocol"] == "article", "it can be saved as a study file"
        assert "images per class (protocol article)" in ran.err
        assert "validation" not in ran.err

    def test_too_few_validation_images_are_warned_of(self, cli: Cli) -> None:
        assert "fewer than 20 validation images of 0" in cli("studies", "show", TINY, "--set", "data.minority=9").err


def test_the_version_by_the_installed_command() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "affinity-search", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().count(".") == 2


def test_raising_the_places_by_the_command(sqlite: Backend, sqlite_url: str, start: Start) -> None:
    """Two launches at the same moment add them once and use them once."""
    make(sqlite)
    both = [start("launch", "tiny", "--trials", "8", "--devices", "cpu", "--storage", sqlite_url) for _ in range(2)]
    assert [one.ended() for one in both] == [0, 0]
    assert sum("places raised from 4 to 8" in one.said for one in both) == 1
    study = load_study(sqlite, "tiny")
    assert Places.of(study).counts().complete == 8
    assert len(study.optuna.trials) == 8


def test_main_is_the_installed_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["affinity-search", "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0


def test_flags_have_no_type_in_the_help(cli: Cli) -> None:
    for command in (["--help"], *([name, "--help"] for name in ("launch", "status", "trials", "studies"))):
        assert "<bool>" not in cli(*command).out
    assert "<bool>" not in cli("studies", "show", "--help").out


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o007, 0o660)])
def test_new_files_follow_the_umask_and_old_ones_keep_their_mode(
    mask: int, mode: int, sqlite: Backend, sqlite_url: str, cli: Cli, tmp_path: Path
) -> None:
    trained(sqlite)
    before = os.umask(mask)
    try:
        for name in ("best.json", "old.json"):
            if name == "old.json":
                (tmp_path / name).touch()
                (tmp_path / name).chmod(0o640)
            cli("export", "tiny", "-o", str(tmp_path / name), "--storage", sqlite_url)
    finally:
        os.umask(before)
    assert (tmp_path / "best.json").stat().st_mode & 0o777 == mode
    assert (tmp_path / "old.json").stat().st_mode & 0o777 == 0o640
    assert not list(tmp_path.glob(".*")), "no draft stays behind"


def test_a_home_folder_is_meant_where_a_shell_leaves_it(
    sqlite: Backend, sqlite_url: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    study = trained(sqlite)
    cli("export", "tiny", "--output=~/best.json", "--storage", sqlite_url)
    assert (tmp_path / "best.json").exists()
    folder = tmp_path / "files" / study.token
    folder.mkdir(parents=True)
    cli("delete", "tiny", "--yes", "--files=~/files", "--storage", sqlite_url)
    assert not folder.exists()
    assert "'~/none' is no folder" in cli("doctor", "--data-dir=~/none", "--storage", sqlite_url, fails=True).err


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_fewer_trials_ask_on_a_terminal(
    answer: str, code: int, sqlite: Backend, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(sqlite)
    monkeypatch.setattr("affinity_search.search.cli.options.is_at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    ran = cli("create", "tiny", "--trials", "2", "--storage", sqlite_url, fails=True)
    assert "places are never taken away. Train the 4 free ones? [y/N]" in ran.err
    assert ran.code == code
    assert load_study(sqlite, "tiny").spec.trials == 4


@pytest.mark.parametrize("module", [*COMMANDS, studies], ids=lambda module: module.__name__.rpartition(".")[2])
def test_help_ends_with_two_examples_that_the_command_takes(cli: Cli, module: ModuleType) -> None:
    command = module.__name__.rpartition(".")[2]
    said = [line.strip() for line in cli(command, "--help").out.splitlines() if line.strip()]
    assert said[-3:] == ["Examples:", *module.EXAMPLES]
    for example in module.EXAMPLES:
        program, *arguments = shlex.split(example)
        assert (program, arguments[0]) == ("affinity-search", command)
        cli(*arguments, "--help")  # an option that is not there would be refused first
