"""The shipped file lists every option as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

from outboxd.config import Settings, load
from outboxd.config.model import SECTIONS
from outboxd.config.template import template

SHIPPED = Path(__file__).parents[2] / "config" / "outboxd.toml"


def test_the_shipped_file_is_what_the_code_writes() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == template(), (
        "write it anew: outboxd config init -c config/outboxd.toml --force"
    )


def test_the_shipped_file_as_it_is_means_all_defaults() -> None:
    found = load(SHIPPED, env={})
    assert found.redacted() == Settings().redacted()


def test_with_every_comment_taken_away_it_still_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"(?m)^#(?! )", "", template()).replace("#\n", "\n"))
    found = load(path, env={})
    expected = Settings().redacted() | {"kafka": {"bootstrap.servers": "localhost:9092"}}
    (route,) = found.routes
    assert found.redacted() | {"route": []} == expected
    assert route.effective_retry(found.retry) == Settings().retry
    assert (route.topic, route.confirm, route.on_dead_letter) == ("metrics.*", "callback", "continue")


def test_every_option_stands_in_it_once_below_its_section_with_a_sentence() -> None:
    for name, model in SECTIONS.items():
        section = template().split(f"\n[{name}]\n")[1].split("\n[")[0]
        for key, (_, info) in model.fields_by_key().items():
            assert len(re.findall(rf"(?m)^#{key} = ", section)) == 1, f"{name}.{key}"
            assert info.description
            assert info.description.endswith("."), f"{name}.{key}"


def test_it_refuses_no_property_whole_of_which_some_values_are_fine() -> None:
    refused = " ".join(template().replace("\n# ", " ").split("guarantee would be void: ")[1].split("\n")[0].split())
    assert 'partitioner "random"; plugin.library.paths.' in refused
