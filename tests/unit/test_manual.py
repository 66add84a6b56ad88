"""The manual pages say what the code says, and `man` can show them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from outboxd import errors
from outboxd.cli.main import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED
from outboxd.cli.manual import EXIT_STATUS, pages
from outboxd.cli.registry import COMMANDS
from outboxd.config.model import SECTIONS

DIRECTORY = Path(__file__).parents[2] / "docs" / "man"


@pytest.mark.parametrize("name", ["outboxd.8", "outboxd.toml.5"])
def test_the_page_is_current(name: str) -> None:
    assert (DIRECTORY / name).read_text(encoding="utf-8") == pages()[name], "run `make man`"


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {code for code, _ in EXIT_STATUS} == codes | {EXIT_INTERRUPTED, EXIT_BROKEN_PIPE}


def test_every_command_and_every_setting_has_its_place() -> None:
    commands, configuration = pages()["outboxd.8"], pages()["outboxd.toml.5"]
    for name in COMMANDS:
        assert f'.SS "outboxd {name}' in commands, name
    for section, model in SECTIONS.items():
        assert f'.SH "[{section}]"' in configuration
        for key in model.fields_by_key():
            assert rf"\fB{key}\fR" in configuration, key


@pytest.mark.parametrize("name", ["outboxd.8", "outboxd.toml.5"])
def test_the_typesetter_has_nothing_to_complain_of(name: str) -> None:
    groff = shutil.which("groff")
    if groff is None:
        # Not a server, and nothing that a change is likely to break: the text is compared above in any case.
        return
    done = subprocess.run(
        [groff, "-man", "-ww", "-Tutf8", "-z", DIRECTORY / name],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
