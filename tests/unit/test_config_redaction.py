"""Secrets are in no text that a person or a log may see."""

from __future__ import annotations

import json

import pytest

from outboxd.config import load
from outboxd.config.redaction import is_secret, redact
from outboxd.errors import ConfigError

SECRET = "hunter2-5ecret"
ENV = {
    "OUTBOXD_DATABASE__URL": f"postgresql://app:{SECRET}@db.example/app?sslpassword={SECRET}&x=1",
    "OUTBOXD_DATABASE__PASSWORD": SECRET,
    "OUTBOXD_HTTP__TOKEN": SECRET,
    "OUTBOXD_KAFKA__SASL_PASSWORD": SECRET,
    "OUTBOXD_KAFKA__SSL_KEY_PASSWORD": SECRET,
    "OUTBOXD_KAFKA__SSL_KEYSTORE_PASSWORD": SECRET,
    "OUTBOXD_KAFKA__SSL_KEY_PEM": SECRET,
    "OUTBOXD_KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
    "OUTBOXD_KAFKA__SASL_OAUTHBEARER_CONFIG": SECRET,
}


def test_no_secret_is_in_what_is_shown_of_the_settings() -> None:
    settings = load(env=ENV)
    for shown in (
        repr(settings),
        str(settings),
        json.dumps(settings.redacted()),
        repr(settings.kafka),
        f"{settings.database}",
    ):
        assert SECRET not in shown
    assert settings.redacted()["database"] == {
        "url": "postgresql://app:********@db.example/app?sslpassword=********&x=1",
        "password": "********",
        "password_file": "",
        "schema": "outboxd",
    }


def test_the_code_that_connects_gets_the_secrets() -> None:
    settings = load(env=ENV)
    assert settings.kafka.properties["sasl.password"] == SECRET
    assert settings.http.token == SECRET


def test_a_separate_password_is_put_into_the_url_quoted_unless_that_has_one() -> None:
    found = load(env={"OUTBOXD_DATABASE__URL": "postgresql://app@db:5432/x?a=b", "OUTBOXD_DATABASE__PASSWORD": "a@b/c"})
    assert found.database.url_with_password == "postgresql://app:a%40b%2Fc@db:5432/x?a=b"
    found = load(env={"OUTBOXD_DATABASE__URL": "postgresql://app:own@db/x", "OUTBOXD_DATABASE__PASSWORD": "other"})
    assert found.database.url_with_password == "postgresql://app:own@db/x"
    assert load(env={}).database.url_with_password == "postgresql://app@localhost/app"


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


def test_an_empty_secret_is_shown_as_empty() -> None:
    assert redact("password", "") == ""
