"""The command line as a shell sees it: arguments at every depth, exit codes, and plain output without a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from outboxd import __version__
from outboxd.cli import main, registry
from outboxd.config.template import template
from outboxd.errors import DatabaseUnavailableError


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOXD_", "CREDENTIALS_"))}
    return subprocess.run(
        [sys.executable, "-m", "outboxd", *arguments],
        env=clean | {"OUTBOXD_CONFIG": os.devnull} | (env or {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "given.toml"
    path.write_text("[relay]\nbatch_rows = 42\n")
    return path


def test_version_prints_the_version_first() -> None:
    done = run("version")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"outboxd {__version__}"
    assert run("--version").stdout == f"outboxd {__version__}\n"


def test_version_as_json_is_one_document() -> None:
    assert json.loads(run("version", "--json").stdout)["outboxd"] == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "FILE", "config", "show", "--json"],
        ["config", "-c", "FILE", "show", "--json"],
        ["config", "show", "-c", "FILE", "--json"],
        ["config", "show", "--json", "-c", "FILE"],
        ["config", "show", "--json", "--config=FILE"],
        ["config", "show", "--json", "-c=FILE"],
        ["config", "show", "--json", "-cFILE"],
        ["--config", "FILE", "config", "show", "--json"],
        ["-c", "/does/not/exist", "config", "show", "--json", "-c", "FILE"],
    ],
)
def test_the_configuration_file_may_be_named_at_every_depth(
    config: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUTBOXD_CONFIG", raising=False)
    assert main([argument.replace("FILE", str(config)) for argument in arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["file"] == str(config)
    assert shown["settings"]["relay.batch_rows"] == {"value": 42, "origin": f"{config}:2"}


def test_the_variable_names_the_configuration_file_when_no_argument_does(config: Path) -> None:
    done = run("config", "show", "--json", env={"OUTBOXD_CONFIG": str(config)})
    assert json.loads(done.stdout)["file"] == str(config)


def test_single_settings_may_be_set_at_every_depth_and_win(config: Path) -> None:
    done = run(
        "--set", "relay.batch_rows=7", "config", "--set=log.level=debug", "show", "--json", "-c", str(config),
        env={"OUTBOXD_RELAY__BATCH_ROWS": "8"},
    )  # fmt: skip
    shown = json.loads(done.stdout)["settings"]
    assert shown["relay.batch_rows"] == {"value": 7, "origin": "flag --set relay.batch_rows"}
    assert shown["log.level"]["value"] == "debug"


def test_nothing_one_command_line_asked_for_is_left_for_the_next(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUTBOXD_CONFIG", raising=False)
    assert main(["-c", str(config), "--set", "log.level=debug", "version"]) == 0
    capsys.readouterr()
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert (shown["relay.batch_rows"]["value"], shown["log.level"]["value"]) == (5000, "info")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config", "--help"], ["config", "show", "-h"], ["version", "--help"]]
)
def test_help_at_every_depth_tells_of_the_configuration_file(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "-c, --config FILE" in done.stdout
    assert "--set SECTION.KEY=VALUE" in done.stdout


def test_without_a_terminal_nothing_is_coloured_wrapped_or_boxed() -> None:
    done = run("config", "show", "--help", env={"FORCE_COLOR": "1", "COLUMNS": "40"})
    assert "\x1b" not in done.stdout
    assert "╭" not in done.stdout
    assert "Configuration file; without it $OUTBOXD_CONFIG, else /etc/outboxd/outboxd.toml." in done.stdout
    long = "x" * 3000
    done = run("config", "show", env={"OUTBOXD_ALERTS__COMMAND": long, "FORCE_COLOR": "1", "COLUMNS": "40"})
    assert any(long in line for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["version", "--nonsense"], ["config"], ["config", "show", "extra"], ["--set", "x", "version"]],
)
def test_a_wrong_use_exits_64_and_says_how_on_standard_error(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 64
    assert done.stdout == ""
    assert "Usage: outboxd" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["-c", ""], ["--config="], ["-c="]])
def test_an_empty_name_of_the_configuration_file_is_a_wrong_use(arguments: list[str]) -> None:
    done = run("config", "show", *arguments)
    assert done.returncode == 64
    assert "names no file" in done.stderr


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    assert "Did you mean 'version'?" in run("versoin").stderr


def test_a_bad_configuration_exits_78_with_every_place_and_no_traceback(config: Path) -> None:
    config.write_text('[relay]\nbatch_rows = 0\nlisten = 1\n[relax]\n[kafka]\nacks = 1\n[log]\nlevel = "loud"\n')
    done = run("config", "show", "-c", str(config))
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("outboxd: the configuration has 5 mistakes:\n")
    assert [line.partition(": ")[0].strip() for line in done.stderr.splitlines()[1:]] == [
        f"{config}:{line}" for line in (2, 3, 4, 6, 8)
    ]
    assert "Traceback" not in done.stderr


def test_an_error_of_ours_is_shown_as_it_is_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "load_command", _failing(DatabaseUnavailableError("no answer from db.example:5432")))
    assert main(["version"]) == 69
    assert capsys.readouterr().err == "outboxd: no answer from db.example:5432\n"


def test_an_unforeseen_error_exits_70_in_one_line_and_with_a_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "load_command", _failing(RuntimeError("two\nlines")))
    monkeypatch.delenv("OUTBOXD_DEBUG", raising=False)
    assert main(["version"]) == 70
    told = capsys.readouterr().err
    assert told.startswith("outboxd: a bug: RuntimeError: two lines; ")
    assert len(told.splitlines()) == 1
    monkeypatch.setenv("OUTBOXD_DEBUG", "1")
    assert main(["version"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_shown_escaped_and_break_nothing(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.toml")
    path.write_text("[relay]\nbatch_rows = 1\n")
    command = [sys.executable, "-m", "outboxd", "config", "show", "-c", str(path)]
    done = subprocess.run([*command, "--json"], capture_output=True, timeout=30, check=True)
    assert "udcff.toml" in json.loads(done.stdout)["file"]
    assert b"udcff.toml:2" in subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
    for arguments, code in ((["\udcff"], 64), ([*command[3:], "--set", "outbox.table=\udcff"], 78)):
        done = subprocess.run([*command[:3], *arguments], capture_output=True, timeout=30, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_command", _failing(KeyboardInterrupt()))
    assert main(["version"]) == 130


def test_ctrl_c_while_a_package_that_is_loaded_makes_a_class_exits_130_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(registry, "load_command", lambda *_, **__: type("Made", (), {"field": Interrupted()}))
    assert main(["version"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_is_no_error_to_talk_about(tmp_path: Path) -> None:
    # More than a pipe holds, so that writing meets the closed end.
    big = tmp_path / "big.toml"
    big.write_text("".join(f'[[route]]\ntopic = "{"t" * 200}{number}"\n' for number in range(2000)))
    with subprocess.Popen(
        [sys.executable, "-m", "outboxd", "config", "show", "-c", str(big)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith(b"database.url")
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(timeout=30) == 141


def test_config_init_writes_the_file_once_and_replaces_it_only_when_told_to(tmp_path: Path) -> None:
    path = tmp_path / "new" / "outboxd.toml"
    done = run("config", "init", "-c", str(path))
    assert (done.returncode, done.stdout) == (0, f"wrote {path}\n")
    assert path.read_text() == template()
    # The service's user, which no one has made a group for, reads it.
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("mine")
    done = run("config", "init", "-c", str(path))
    assert (done.returncode, path.read_text()) == (64, "mine")
    assert f"{path} is there already; --force replaces it" in done.stderr
    assert run("config", "init", "-c", str(path), "--force").returncode == 0
    assert path.read_text() == template()
    assert [entry.name for entry in path.parent.iterdir()] == ["outboxd.toml"]


def test_config_init_names_the_file_that_stands_where_a_directory_would(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("config", "init", "-c", str(tmp_path / "file" / "outboxd.toml"))
    assert done.returncode == 64
    assert f"{tmp_path}/file is no directory" in done.stderr


def test_config_init_prints_the_file_when_its_name_is_a_hyphen() -> None:
    assert run("config", "init", "-c", "-").stdout == template()


def test_config_show_hides_secrets() -> None:
    done = run(
        "config", "show", env={"OUTBOXD_DATABASE__URL": "postgresql://u:hush@h/d", "OUTBOXD_HTTP__TOKEN": "hush"}
    )
    assert "hush" not in done.stdout
    assert "postgresql://u:********@h/d" in done.stdout


def test_check_warns_of_a_file_that_everybody_may_read_and_that_has_a_password_in_its_url(tmp_path: Path) -> None:
    path = tmp_path / "outboxd.toml"
    path.write_text('[database]\nurl = "postgresql://u:hu#sh@h/d"\n')
    path.chmod(0o644)
    done = run("check", "--offline", "-c", str(path))
    assert f"{path} holds a secret and everybody may read it" in done.stdout
    path.write_text('[database]\nurl = "postgresql://u@h/d?passfile=/x"\n')
    assert "holds a secret" not in run("check", "--offline", "-c", str(path)).stdout
    path.write_text('[kafka]\n"sasl.oauthbearer.token.endpoint.url" = "https://h/token?client_secret=hush"\n')
    assert f"{path} holds a secret and everybody may read it" in run("check", "--offline", "-c", str(path)).stdout


def test_check_warns_of_each_file_with_a_secret_that_everybody_may_read(tmp_path: Path) -> None:
    named = {
        "http.token_file": "token", "database.password_file": "password", "kafka.sasl.password_file": "sasl",
        "kafka.ssl.key.location": "key", "kafka.ssl.ca.location": "ca",
    }  # fmt: skip
    options = []
    for setting, name in named.items():
        (tmp_path / name).write_text("hush\n")
        (tmp_path / name).chmod(0o644)
        options += ["--set", f"{setting}={tmp_path / name}"]
    said = run("check", "--offline", *options).stdout
    for name in ("token", "password", "sasl", "key"):
        assert f"{tmp_path / name} holds a secret and everybody may read it" in said
        (tmp_path / name).chmod(0o640)
    assert f"{tmp_path / 'ca'} holds" not in said
    assert "holds a secret" not in run("check", "--offline", *options).stdout


def test_check_calls_no_configuration_fine_of_which_the_brokers_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "outboxd.toml"
    assert run("config", "init", "-c", str(path)).returncode == 0
    done = run("check", "--offline", "--json", "-c", str(path))
    weights = [each["weight"] for each in json.loads(done.stdout)["findings"] if each["area"] == "configuration"]
    assert weights == ["misconfigured"]


def test_version_starts_without_the_libraries_it_does_not_need() -> None:
    code = (
        "import sys; from outboxd.cli import main; main(['version']); "
        "print([name for name in ('sqlalchemy', 'confluent_kafka', 'outboxd.config') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def _failing(error: BaseException) -> object:
    import typer
    from typer.main import get_command

    app = typer.Typer(add_completion=False)

    @app.command()
    def fail() -> None:
        raise error

    return lambda *_arguments, **_options: get_command(app)
