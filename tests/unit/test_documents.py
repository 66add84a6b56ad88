"""The guides agree with the code and with each other."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd.cli.main import main
from outboxd.config import load
from outboxd.daemon.reload import NEEDS_RESTART
from outboxd.policy.faults import FaultClass, fault_named
from tests.support.documents import GUIDES, ROOT, Block, blocks

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Its blocks are run in their order by tests/integration/test_dead_letter_walk.py.
WALKED = ROOT / "docs" / "dead-letters.md"
#: What it shows takes hours, and is for developers.
LONG = ROOT / "docs" / "reliability.md"
#: `outboxd fetch` and the like are names of spans there.
SPANS = ROOT / "docs" / "tracing.md"
GROUPS = ("dead", "config")
OUTCOMES = {
    FaultClass.ROW_PERMANENT: "dead letter",
    FaultClass.ROW_PASSING: "retry",
    FaultClass.TOPIC: "topic held",
    FaultClass.CLUSTER: "each topic held",
    FaultClass.PRODUCER: "producer built anew",
    FaultClass.UNLISTED: "retry, then topic held",
}


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.place)
def test_every_configuration_that_is_shown_can_be_used(block: Block, tmp_path: Path) -> None:
    # Files of an imagined machine are not here.
    (tmp_path / "shown.toml").write_text(block.text.replace("/etc/ssl/certs/our-ca.pem", str(tmp_path / "shown.toml")))
    load(tmp_path / "shown.toml", env={})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_javas_exceptions_stand_beside_what_the_table_of_faults_says() -> None:
    text = (ROOT / "docs" / "applications.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `\w+Exception`[^|]*\| `(\w+)` \| ([^|]+) \|$", text)
    assert len(rows) > 20
    for name, outcome in rows:
        fault = fault_named(name)
        assert fault is not None, name
        expected = OUTCOMES[fault.fault_class]
        # "Does not happen" comes before what would be done if it did.
        assert re.sub(r"^does not happen; ", "", outcome).startswith(expected), (name, outcome)
        assert ("once it failed alone" in outcome) == (
            fault.fault_class is FaultClass.ROW_PERMANENT and fault.batch_wide
        ), name


def test_what_needs_a_restart_is_told() -> None:
    text = (ROOT / "docs" / "configure.md").read_text(encoding="utf-8")
    for name in NEEDS_RESTART:
        assert (f"`[{name[:-1]}]`" if name.endswith(".") else f"`{name}`") in text, name


def test_every_alert_that_can_ring_is_explained() -> None:
    rules = (ROOT / "config" / "prometheus-alerts.yml").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "operations" / "alerts.md").read_text(encoding="utf-8")
    assert {f"`{name}`" for name in re.findall(r"alert: (\w+)", rules)} == set(re.findall(r"`Outboxd\w+`", text))


def test_every_credential_of_the_unit_is_told() -> None:
    unit = (ROOT / "systemd" / "outboxd.service").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?m)^LoadCredential=[^:]+:(.+)$", unit):
        assert f"`{name}`" in text, name


def test_every_page_for_operators_stands_in_their_list() -> None:
    listed = (ROOT / "docs" / "operations" / "README.md").read_text(encoding="utf-8")
    for document in (ROOT / "docs" / "operations").glob("*.md"):
        assert document.name == "README.md" or f"({document.name})" in listed, document.name


def test_every_block_that_can_be_run_is_in_a_document_whose_blocks_are_run() -> None:
    for document in DOCUMENTS:
        if any(blocks(language, document) for language in ("sh", "sql", "toml")):
            assert document in {*GUIDES, WALKED, LONG}, document


def test_what_takes_hours_at_least_exists() -> None:
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    for command in (command for block in blocks("sh", LONG) for command in block.commands):
        program, *arguments = command.split()
        if program == "make":
            assert arguments[0] in targets, command
        else:
            assert (program, arguments[0]) == (".venv/bin/python", "-m"), command
            assert importlib.util.find_spec(f"{arguments[1]}.__main__"), command


def mentioned(document: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The commands that a text names within it, and their options: `outboxd dead replay --force`, `dead show|list`."""
    for said in re.findall(r"`outboxd (\S[^`]*)`", document.read_text(encoding="utf-8")):
        names = [word for word in said.split() if re.fullmatch(r"[a-z]+(\|[a-z]+)*", word)]
        options = re.findall(r"(?<!\S)--[a-z-]+", said)
        for name in names[:1] and names[0].split("|"):
            if name in GROUPS and len(names) > 1:
                for part in names[1].split("|"):
                    yield [name, part], options
            else:
                yield [name], options


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if each != SPANS], ids=lambda document: str(document.relative_to(ROOT))
)
def test_every_command_that_a_text_mentions_exists_with_its_options(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, options in mentioned(document):
        assert main([*command, "--help"]) == 0, command
        told = capsys.readouterr().out
        for option in options:
            assert re.search(rf"{option}\b", told), (command, option)
