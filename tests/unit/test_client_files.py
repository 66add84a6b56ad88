"""The files that a client reads are told apart by what is in them, wherever they are."""

from __future__ import annotations

from pathlib import Path

from outboxd.kafka.client.client_files import contents


def test_a_file_that_has_other_contents_under_its_path_is_another(tmp_path: Path) -> None:
    certificate = tmp_path / "client.crt"
    properties = {"bootstrap.servers": "a:9092", "ssl.certificate.location": str(certificate)}
    certificate.write_text("old")
    before = contents(properties)
    assert list(before) == ["ssl.certificate.location"]
    certificate.touch()
    assert contents(properties) == before
    certificate.write_text("new")
    assert contents(properties) != before


def test_a_link_that_leads_elsewhere_is_another_file(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "client.key"
    link.symlink_to("old")
    before = contents({"ssl.key.location": str(link)})
    link.unlink()
    link.symlink_to("new")
    assert contents({"ssl.key.location": str(link)}) != before


def test_a_directory_of_authorities_is_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.crt").write_text("a")
    before = contents({"ssl.ca.location": str(tmp_path)})
    (tmp_path / "b.crt").write_text("b")
    assert contents({"ssl.ca.location": str(tmp_path)}) != before


def test_what_cannot_be_read_is_no_error_here(tmp_path: Path) -> None:
    assert contents({"ssl.ca.location": "probe", "ssl.key.location": str(tmp_path / "nothing")}) == {
        "ssl.ca.location": "",
        "ssl.key.location": "",
    }
