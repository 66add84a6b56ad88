"""What a checkout has to be for the two commands of the README to work anywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_names_no_address_and_has_a_hash_for_each_version() -> None:
    assert "://" not in LOCK
    assert not re.search(r"(?m)^\s*--(index|extra|find|trusted)", LOCK)
    pinned = re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK)[1:]
    assert len(pinned) > 30
    for entry in pinned:
        assert re.match(r"[A-Za-z0-9._-]+==[^\s;]+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_lock_has_all_that_the_project_asks_for() -> None:
    locked = {normal(name) for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", LOCK)}
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *extras["demo"], *extras["test"]]:
        (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
        assert normal(name) in locked, requirement


def test_make_help_tells_of_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", makefile)
    told = re.findall(r"(?m)^([a-z-]+):.*## ", makefile)
    assert sorted(phony.split()) == sorted(told)


def test_the_readme_names_both_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^make \w+$", readme)[:2] == ["make demo", "make test"]
