"""Secrets are in no text that a person or a log may see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outboxd.config import load
from outboxd.config.redaction import is_secret, redact
from outboxd.errors import ConfigError

SECRET = "hunter2-5ecret"
DATABASE_DEFAULTS = {"password": "", "password_file": "", "schema": "outboxd"}
URL = f"postgresql://app:{SECRET}@db.example/app?sslpassword={SECRET}&sslmode=prefer"
ENV = {
    "OUTBOXD_DATABASE__PASSWORD": SECRET,
    "OUTBOXD_HTTP__TOKEN": SECRET,
    "OUTBOXD_KAFKA__SASL_PASSWORD": SECRET,
    "OUTBOXD_KAFKA__SSL_KEY_PASSWORD": SECRET,
    "OUTBOXD_KAFKA__SSL_KEYSTORE_PASSWORD": SECRET,
    "OUTBOXD_KAFKA__SSL_KEY_PEM": SECRET,
    "OUTBOXD_KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
    "OUTBOXD_KAFKA__SASL_OAUTHBEARER_CONFIG": SECRET,
    "OUTBOXD_KAFKA__SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": f"https://u:{SECRET}@h/token?scope=x&client_secret={SECRET}",
    "OUTBOXD_KAFKA__SASL_KERBEROS_KINIT_CMD": f"echo {SECRET} | kinit outboxd",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "outboxd.toml"
    path.write_text(f'[database]\nurl = "{URL}"\n')
    return path


def test_no_secret_is_in_what_is_shown_of_the_settings(file: Path) -> None:
    settings = load(file, env=ENV)
    for shown in (
        repr(settings),
        str(settings),
        json.dumps(settings.redacted()),
        repr(settings.kafka),
        f"{settings.database}",
    ):
        assert SECRET not in shown
    assert settings.redacted()["database"] == {
        "url": "postgresql://app:********@db.example/app?sslpassword=********&sslmode=prefer",
        "password": "********",
        "password_file": "",
        "schema": "outboxd",
    }
    shown_url = settings.kafka.plain()["sasl.oauthbearer.token.endpoint.url"]
    assert shown_url == "https://u:********@h/token?scope=x&client_secret=********"


def test_the_code_that_connects_gets_the_secrets(file: Path) -> None:
    settings = load(file, env=ENV)
    assert settings.database.secrets == [SECRET, SECRET, SECRET]
    assert settings.kafka.properties["sasl.password"] == SECRET
    assert settings.http.token == SECRET


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://a:{SECRET}#C@h/d", "postgresql://a:********@h/d"),
        (f"postgresql://a:{SECRET}?C@h/d", "postgresql://a:********@h/d"),
        (f"postgresql://a@h/d?pass%77ord={SECRET}", "postgresql://a@h/d?pass%77ord=********"),
        (f"postgresql+psycopg://:{SECRET}@h,g/d?sslpassword={SECRET}", "postgresql+psycopg://:********@h,g/d?sslpassword=********"),
        (f"postgresql://a:{SECRET}@h/d?password=", "postgresql://a:********@h/d?password=********"),
        ("postgresql://a@h1:1,h2:2/d?passfile=/x&sslmode=require", "postgresql://a@h1:1,h2:2/d?passfile=/x&sslmode=require"),
        ("postgresql://a@h/d%40e", "postgresql://a@h/d%40e"),
    ],
)  # fmt: skip
def test_a_url_shows_no_password_wherever_the_client_library_finds_one(url: str, shown: str) -> None:
    settings = load(env={"OUTBOXD_DATABASE__URL": url})
    assert settings.redacted()["database"] == {**DATABASE_DEFAULTS, "url": shown}
    assert SECRET not in repr(settings)
    if url != shown:
        with pytest.raises(ConfigError, match="is seen by `ps`") as caught:
            load(flags={"database.url": url}, env={})
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgres+psycopg://app:{SECRET}@h/d", f"postgresql://app:{SECRET}%ZZ@h/d", f"postgresql://app:{SECRET}%00@h/d",
        f"postgresql://a:{SECRET}/C@h/d", f"postgresql://a:12/{SECRET}@h/d", f"postgresql://a:s@{SECRET}@h/d",
        f"postgresql://a:my {SECRET}@h/d", f"host=h password = {SECRET}", f"postgresql://a:{SECRET}@[::1/d",
        f"postgresql://a:{SECRET}@h/d?foo=bar", f"postgresql://a:{SECRET}@h/d?x", f"postgresql://a:{SECRET}@h:none/d",
        f"POSTGRESQL://a:{SECRET}@h/d",
    ],
)  # fmt: skip
def test_a_url_that_no_command_can_use_is_refused_unseen(url: str) -> None:
    for env, flags in (({"OUTBOXD_DATABASE__URL": url}, {}), ({}, {"database.url": url})):
        with pytest.raises(ConfigError, match=r"database\.url: .*; allowed: ") as caught:
            load(env=env, flags=flags)
        assert SECRET not in str(caught.value)
        assert "postgresql://USER@HOST" in str(caught.value) or "among the arguments" in str(caught.value)
    assert SECRET not in str(redact("url", url))


@pytest.mark.parametrize(
    "text",
    [
        f"curl https://u:{SECRET}#x@h/", f"host=h password = {SECRET}", f"psql password='it\\'s {SECRET}'",
        f"https://h/token?client%5Fsecret={SECRET}", f"https://h/?a=b&access_token={SECRET}&c=d",
    ],
)  # fmt: skip
def test_a_password_within_any_text_is_hidden(text: str) -> None:
    assert SECRET not in str(redact("command", text))


@pytest.mark.parametrize(
    "env",
    [
        {"OUTBOXD_DATABASE__URL": f"mysql://u:{SECRET}@h/d"},
        {"OUTBOXD_DATABASE__PASSWORD": f"{SECRET}\0"},
        {"OUTBOXD_HTTP__TOKEN": SECRET * 1000},
        {"OUTBOXD_KAFKA__SASL_PASSWORD": SECRET, "OUTBOXD_KAFKA__ACKS": "1"},
    ],
)
def test_no_secret_is_in_an_error(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(env=env)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("sasl.password", True), ("password", True), ("token", True), ("ssl.key.pem", True), ("sasl.jaas.config", True),
        ("sasl.oauthbearer.client.secret", True), ("sasl.oauthbearer.assertion.private.key.passphrase", True),
        ("password_file", False), ("sasl.password_file", False), ("sasl.username", False), ("url", False),
        ("sasl.oauthbearer.token.endpoint.url", False), ("ssl.ca.location", False),
    ],
)  # fmt: skip
def test_secrets_are_known_by_their_names(key: str, *, secret: bool) -> None:
    assert is_secret(key) is secret


def test_a_secret_among_the_parameters_of_a_url_is_refused_among_the_arguments() -> None:
    flags = {"kafka.sasl.oauthbearer.token.endpoint.url": f"https://h/token?client_secret={SECRET}"}
    with pytest.raises(ConfigError, match="is seen by `ps`; allowed: the same in the file") as caught:
        load(flags=flags, env={})
    assert SECRET not in str(caught.value)


def test_an_empty_secret_is_shown_as_empty() -> None:
    assert redact("password", "") == ""
