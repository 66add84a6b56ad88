"""The layers of the configuration, their precedence, and what a person is told about every mistake in them."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outboxd.config import RelaySettings, RetrySettings, RouteSettings, Settings, load
from outboxd.config.model import SECTIONS
from outboxd.errors import EXIT_CONFIG, ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "outboxd.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(path: Path | None, flags: dict[str, str] | None = None, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, flags or {}, env or {})
    assert caught.value.exit_code == EXIT_CONFIG
    message = str(caught.value)
    if message.startswith("the configuration has a mistake: "):
        return [message.removeprefix("the configuration has a mistake: ")]
    head, *lines = message.splitlines()
    assert head == f"the configuration has {len(lines)} mistakes:"
    return [line.strip() for line in lines]


def test_without_any_source_everything_is_the_default() -> None:
    found = load(env={})
    assert found == Settings()
    assert found.relay.batch_rows == 5000
    assert found.relay.batch_bytes == 4 << 20
    assert found.relay.sweep_interval_seconds == 5.0
    assert found.cluster.lease_ttl_seconds == 10.0
    assert str(found.origin("relay.batch_rows")) == "default"


def test_flags_win_over_environment_over_credentials_over_file_over_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[outbox]\nname = "file"\ntable = "file"\n[database]\nurl = "postgresql://file/x"\nschema = "file"\n'
        '[alerts]\ncommand = "file"\n',
    )
    directory = tmp_path / "credentials"
    directory.mkdir()
    for key in ("outbox.name", "outbox.table", "database.schema"):
        (directory / key).write_text("credential\n")
    env = {
        "CREDENTIALS_DIRECTORY": str(directory),
        "OUTBOXD_OUTBOX__NAME": "environment",
        "OUTBOXD_OUTBOX__TABLE": "environment",
    }
    found = load(path, {"outbox.name": "flag"}, env)
    assert found.outbox.name == "flag"
    assert found.outbox.table == "environment"
    assert found.database.schema_ == "credential"
    assert found.alerts.command == "file"
    assert found.http.listen == "127.0.0.1:9464"
    origins = {key: str(found.origin(key)) for key in ("outbox.name", "outbox.table", "database.schema", "http.listen")}
    assert origins == {
        "outbox.name": "flag --set outbox.name",
        "outbox.table": "environment OUTBOXD_OUTBOX__TABLE",
        "database.schema": "credential database.schema",
        "http.listen": "default",
    }
    assert str(found.origin("alerts.command")) == f"{path}:8"


def test_a_variable_in_two_spellings_is_a_mistake() -> None:
    (line,) = mistakes(None, env={"OUTBOXD_RELAY__BATCH_ROWS": "1", "OUTBOXD_RELAY__batch_rows": "2"})
    assert "relay.batch_rows: given twice, in two spellings" in line


def test_a_byte_order_mark_at_the_beginning_of_the_file_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "outboxd.toml"
    path.write_bytes(b"\xef\xbb\xbf[relay]\r\nbatch_rows = 7\r\n")
    settings = load(path, env={})
    assert (settings.relay.batch_rows, settings.origin("relay.batch_rows").line) == (7, 2)


def test_the_file_is_the_named_one_else_the_variables_else_the_usual_one_which_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "[relay]\nbatch_rows = 7\n")
    assert load(path, env={"OUTBOXD_CONFIG": "/does/not/exist"}).relay.batch_rows == 7
    assert load(env={"OUTBOXD_CONFIG": str(path)}).relay.batch_rows == 7
    assert load(env={}).file is None
    missing = tmp_path / "missing.toml"
    assert mistakes(missing) == [f"{missing}: no such file; `outboxd config init` writes one"]
    assert mistakes(None, env={"OUTBOXD_CONFIG": str(missing)}) == [
        f"{missing}: no such file; `outboxd config init` writes one"
    ]


def test_five_mistakes_are_one_error_with_five_places(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[relay]\n"
        "batch_rowz = 5\n"
        'poll_interval_max = "100 parsecs"\n'
        "[kafka]\n"
        'acks = "1"\n'
        "[databse]\n"
        "[retry]\n"
        "max_attempts = -1\n",
    )
    assert [line.partition(": ")[0] for line in mistakes(path)] == [f"{path}:{line}" for line in (2, 3, 5, 6, 8)]
    told = dict(zip((2, 3, 5, 6, 8), mistakes(path), strict=True))
    assert "relay.batch_rowz: no such key; did you mean batch_rows?; allowed: batch_rows, batch_bytes" in told[2]
    assert "'100 parsecs' is not a duration; allowed: a number with a unit" in told[3]
    assert "kafka.acks: '1' is refused: a leader's word alone can be lost" in told[5]
    assert "databse: no such section; did you mean database?" in told[6]
    assert "retry.max_attempts: -1 is too small; allowed: a whole number of attempts, 0 to 1000000" in told[8]


def test_mistakes_of_every_source_are_told_together(tmp_path: Path) -> None:
    path = write(tmp_path, "[relay]\nbatch_rows = 0\n")
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "log.level").write_text("loud\n")
    (directory / "somebody.elses").write_text("x")
    env = {
        "CREDENTIALS_DIRECTORY": str(directory),
        "OUTBOXD_CLUSTER__LEASE_TTL": "10ms",
        "OUTBOXD_CLUSTR__X": "1",
        "OUTBOXD_DEBUG": "1",
    }
    told = mistakes(path, {"http.listen": "here", "nonsense.key": "1"}, env)
    assert [line.partition(": ")[0] for line in told] == [
        f"{path}:2",
        "credential log.level",
        "environment OUTBOXD_CLUSTER__LEASE_TTL",
        "environment OUTBOXD_CLUSTR__X",
        "flag --set http.listen",
        "flag --set nonsense.key",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[relay]\nbatch_rows = "5000"', "relay.batch_rows: '5000' is not a whole number"),
        ("[relay]\nbatch_rows = true", "relay.batch_rows: True is not a whole number"),
        ("[relay]\nbatch_bytes = 1000", "relay.batch_bytes: 1000 is without a unit"),
        (f"[relay]\nsweep_interval = '{'9' * 400}d'", "d' is not a duration; allowed: a number with a unit"),
        (f"[relay]\nbatch_bytes = '{'9' * 300}B'", "B' is too large"),
        ("[database]\nschema = 'pg_temp'", "database.schema: 'pg_temp' is not of the right form; allowed: a name of 1"),
        ("[alerts]\ncommand = 'mail \"root'", "alerts.command: 'mail \"root' is nothing that can be split into words"),
        ("[relay]\nsweep_interval = 5", "relay.sweep_interval: 5 is without a unit"),
        (
            "[relay]\nsweep_interval_seconds = 5.0",
            "relay.sweep_interval_seconds: no such key; did you mean sweep_interval?",
        ),
        ('[relay]\nlisten = "yes"', "relay.listen: 'yes' is neither true nor false"),
        (
            '[relay]\ndelivery = "twice"',
            """'twice' is not one of the choices; allowed: "at-least-once", "exa""",
        ),
        ('[relay]\npoll_interval_min = "1s"', "relay.poll_interval_min: is above relay.poll_interval_max"),
        ('[retry]\nbackoff_initial = "1h"', "retry.backoff_initial: is above backoff_max"),
        ("[database]\nschema = ''", "database.schema: '' is not of the right form"),
        (f"[outbox]\ntable = '{'x' * 64}'", "is longer than 63 bytes"),
        ("[database]\nurl = 'mysql://x'", "database.url: the value is not of the right form; allowed: a URL such as"),
        ("[outbox]\nname = 'a b'", "outbox.name: 'a b' is not of the right form"),
        ("[cluster]\nlease_ttl = '999ms'", "cluster.lease_ttl: '999ms' is too small"),
        ("[http]\nlisten = '0.0.0.0:9464'", "http.listen: is reachable from elsewhere; allowed: a loopback address"),
        ("[http]\nlisten = 'ip6-localhost:9464'", "http.listen: is reachable from elsewhere; allowed: a loopback"),
        ("[http]\nlisten = '127.0.0.1:99999'", "http.listen: has a port above 65535"),
        ("[alerts]\ndead_letter_topic = 'a/b'", "alerts.dead_letter_topic: 'a/b' is not of the right form"),
        ("relay = 5", "relay: not a table; allowed: [relay]"),
        ("[route]\ntopic = 'x'", "route: not an array of tables; allowed: [[route]]"),
        ("[[route]]\nconfirm = 'each'", "route[0].topic: missing"),
        ("[[route]]\ntopic = 'x'\nconfirmm = 'each'", "route[0].confirmm: no such key; did you mean confirm?"),
        ("[[route]]\ntopic = 'x'\nretry.max_age = 5", "route[0].retry.max_age: 5 is without a unit"),
        ("[[route]]\ntopic = 'x'\nretry.backoff_initial = '1h'", "route[0].retry: makes backoff_initial larger"),
        (
            "[relay]\ndelivery = 'exactly-once'\n[[route]]\ntopic = 'x'\nconfirm = 'none'",
            'route[0].confirm: "none" can lose records',
        ),
        (
            "[relay]\ndelivery = 'exactly-once'\n[[route]]\ntopic = 'x'\nconfirm = 'each'",
            'route[0].confirm: "each" sends one record at a time',
        ),
        ("[kafka]\n'linger.ms' = 5\nlinger.ms = 10", "kafka.linger.ms: given twice, in two spellings; allowed: one"),
        (
            "[[route]]\ntopic = 'x'\n'retry.max_attempts' = 5\nretry.max_attempts = 10",
            "route[0].retry.max_attempts: given twice",
        ),
        ("[relay\n", "not TOML in UTF-8: "),
        ("[kafka]\n'linger.ms' = nan", "kafka.linger.ms: nan is no value; allowed: a string, a finite number"),
        ("[kafka]\n'linger.ms' = -inf", "kafka.linger.ms: -inf is no value; allowed: a string, a finite number"),
        ("[kafka]\n'client.id' = +inf", "kafka.client.id: inf is no value; allowed: a string, a finite number"),
        ("[kafka]\n'linger.ms' = ' NaN'", "kafka.linger.ms: ' NaN' is not a number; allowed: milliseconds such as 5"),
        ("[kafka]\n'queue.buffering.max.ms' = '-nan(1)'", "kafka.queue.buffering.max.ms: '-nan(1)' is not a number"),
        ("[retry]\nbackoff_max = nan", "retry.backoff_max: nan is without a unit"),
        ("[relay]\nbatch_rows = inf", "relay.batch_rows: inf is not a whole number"),
        ("[kafka]\n'bootstrap.servers' = ['a', 'b']", "kafka.bootstrap.servers: not a single value"),
        ("[kafka]\nbootstrap.serverz = 'x'", "no such property of librdkafka; did you mean bootstrap.servers?"),
        ("[kafka]\n'linger.ms' = 'soon'", "kafka.linger.ms: refused by librdkafka: Invalid value"),
        ("[kafka]\n'socket.timeout.ms' = 5", "outside allowed range"),
        ('[kafka]\n"client.id" = "a\\u0000b"', "kafka.client.id: not text; allowed: UTF-8 without NUL"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(tmp_path: Path, text: str, told: str) -> None:
    (line,) = mistakes(write(tmp_path, text))
    assert told in line


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("connect_timeout=abc", "connect_timeout is no number of seconds"),
        ("connect_timeout=", "connect_timeout is no number of seconds"),
        ("connect_timeout=inf", "connect_timeout is no number of seconds"),
        ("keepalives_idle=soon", "keepalives_idle is no whole number"),
        ("port=99999", "a port is none of 1 to 65535"),
        ("port=0", "a port is none of 1 to 65535"),
        ("port=1,2", "there are neither as many ports as hosts nor one for all"),
        ("sslmode=bogus", "invalid sslmode value"),
        ("target_session_attrs=bogus", "invalid target_session_attrs value"),
        ("gssencmode=bogus", "invalid gssencmode value"),
        ("channel_binding=bogus", "invalid channel_binding value"),
        ("require_auth=bogus", "invalid require_auth value"),
        ("load_balance_hosts=bogus", "invalid load_balance_hosts value"),
        ("service=bogus", "definition of service not found"),
        ("hostaddr=bogus", "hostaddr is no address in numbers"),
        ("host=a,b&hostaddr=127.0.0.1", "host and hostaddr list unequally many"),
        ("sslmode=bo%22gus", "invalid sslmode value"),
    ],
)
def test_a_parameter_of_the_url_that_no_connection_could_be_made_with_is_a_mistake(parameter: str, told: str) -> None:
    (line,) = mistakes(None, env={"OUTBOXD_DATABASE__URL": f"postgresql://u@h/d?{parameter}"})
    assert "database.url: the value is nothing that PostgreSQL's client library can use" in line
    assert told in line
    assert "bogus" not in line
    assert "gus" not in line


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("PGSSLMODE", 'the environment\'s PGSSLMODE: invalid sslmode value: "bogus"'),
        ("PGGSSENCMODE", "the environment's PGGSSENCMODE: invalid gssencmode value"),
        ("PGTARGETSESSIONATTRS", "the environment's PGTARGETSESSIONATTRS: invalid target_session_attrs value"),
        ("PGREQUIREAUTH", "the environment's PGREQUIREAUTH: invalid require_auth value"),
        ("PGMINPROTOCOLVERSION", "the environment's PGMINPROTOCOLVERSION: invalid min_protocol_version value"),
        ("PGSERVICE", "the environment's PGSERVICE: definition of service"),
        ("PGPORT", "the environment's PGPORT: invalid integer value"),
        ("PGHOSTADDR", "the environment's PGHOSTADDR: no address in numbers"),
    ],
)
def test_what_the_environment_makes_unusable_is_not_blamed_on_the_url(
    variable: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "bogus")
    (line,) = mistakes(None, env={"OUTBOXD_DATABASE__URL": "postgresql://u@h/d?connect_timeout=3"})
    assert told in line


def test_the_environment_counts_only_where_the_url_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGSSLMODE", "PGGSSENCMODE", "PGPORT", "PGHOSTADDR"):
        monkeypatch.setenv(variable, "bogus")
    url = "postgresql://u@h:5432/d?sslmode=require&gssencmode=disable&hostaddr=127.0.0.1"
    assert load(env={"OUTBOXD_DATABASE__URL": url}).database.url == url
    (line,) = mistakes(None, env={"OUTBOXD_DATABASE__URL": url.replace("require", "wrong")})
    assert "invalid sslmode value" in line
    assert "PGSSLMODE" not in line


@pytest.mark.parametrize("parameter", ["", "?host=h", "?sslmode=bogus", "?gssencmode=prefer"])
def test_nothing_is_opened_to_judge_a_url(parameter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(listener.getsockname()[1]))
        with contextlib.suppress(ConfigError):
            load(env={"OUTBOXD_DATABASE__URL": f"postgresql:///d{parameter}"})
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@a:1,b:65535/d?target_session_attrs=read-write&load_balance_hosts=random",
        "postgresql://u@a,b/d?port=5433&hostaddr=127.0.0.1,::1&sslmode=verify-full&sslrootcert=/nowhere",
        "postgresql:///d?host=/run/postgresql&connect_timeout=2.5&keepalives=0&gssencmode=disable",
        "postgresql://u@h/d?gssencmode=require&require_auth=scram-sha-256,gss&channel_binding=prefer",
    ],
)
def test_what_the_client_library_can_use_is_no_mistake(url: str) -> None:
    assert load(env={"OUTBOXD_DATABASE__URL": url}).database.url == url


@pytest.mark.parametrize("key", ["message.max.bytes", "batch.size", "transaction.timeout.ms"])
@pytest.mark.parametrize("value", ["0x7000", "070000"])
def test_a_number_that_is_read_here_too_is_written_in_decimal_digits(key: str, value: str) -> None:
    (line,) = mistakes(None, {f"kafka.{key}": value})
    assert f"kafka.{key}: {value!r} is not written in decimal digits" in line
    assert load(None, {f"kafka.{key}": "28672"}, {}).kafka.properties == {key: "28672"}


def test_a_queue_of_the_client_that_has_no_room_for_a_record_is_a_mistake() -> None:
    (line,) = mistakes(None, {"kafka.queue.buffering.max.kbytes": "976"})
    assert "kafka.queue.buffering.max.kbytes: has no room for a record of message.max.bytes (1000000)" in line
    assert line.endswith("allowed: at least 977")
    flags = {"kafka.queue.buffering.max.kbytes": "976", "kafka.message.max.bytes": "999424"}
    assert load(None, flags, {}).kafka.properties == {name.removeprefix("kafka."): flags[name] for name in flags}
    (line,) = mistakes(None, {**flags, "kafka.message.max.bytes": "many"})
    assert "refused by librdkafka" in line


@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
def test_a_login_by_token_that_nothing_gives_is_a_mistake(name: str) -> None:
    flags = {"kafka.security.protocol": "sasl_ssl", f"kafka.{name}": "OAUTHBEARER"}
    (line,) = mistakes(None, flags)
    assert f"kafka.{name}: OAUTHBEARER, and nothing gives the client a token" in line
    for more in (
        {"kafka.sasl.oauthbearer.method": "oidc"},
        {"kafka.enable.sasl.oauthbearer.unsecure.jwt": "true"},
        {"kafka.security.protocol": "ssl"},
    ):
        assert load(None, {**flags, **more}, {}).kafka.properties


def test_contradictions_are_told_together_with_all_other_mistakes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[retry]\n"
        "max_attempts = -1\n"
        'backoff_initial = "1h"\n'
        "[relay]\n"
        'delivery = "exactly-once"\n'
        'poll_interval_min = "1s"\n'
        "[http]\n"
        "listen = '0.0.0.0:99999'\n"
        "[[route]]\n"
        "topic = 'x'\n"
        "confirm = 'each'\n"
        "on_dead_letter = 'wait'\n",
    )
    told = [line.removeprefix(f"{path}:") for line in mistakes(path)]
    assert [line.split(": ")[:2] for line in told] == [
        ["2", "retry.max_attempts"],
        ["3", "retry.backoff_initial"],
        ["6", "relay.poll_interval_min"],
        ["8", "http.listen"],
        ["8", "http.listen"],
        ["11", "route[0].confirm"],
        ["12", "route[0].on_dead_letter"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[retry]\nbackoff_initial = '1h'\nbackoff_max = 'long'",
        "[relay]\npoll_interval_min = '1s'\npoll_interval_max = 'long'",
        "[http]\nlisten = '0.0.0.0:9464'\ntoken_file = '/nonexistent/token'",
        "[relay]\ndelivery = 'exactly-onze'\n[[route]]\ntopic = 'x'\nconfirm = 'none'",
        "[retry]\nbackoff_initial = '1h'\n[[route]]\ntopic = 'x'",
        "[[route]]\ntopic = 'x'\nretry.backoff_initial = '1h'\nretry.backoff_max = 'long'",
        "[relay]\ndelivery = 'exactly-once'\n[[route]]\ntopic = ''\n[[route]]\ntopic = 'y'",
    ],
)
def test_what_follows_from_a_mistake_is_no_second_one(tmp_path: Path, text: str) -> None:
    assert len(mistakes(write(tmp_path, text))) == 1


def test_a_property_with_an_underscore_may_come_from_the_environment() -> None:
    env = {"OUTBOXD_KAFKA__LOG_LEVEL": "3", "OUTBOXD_KAFKA__LINGER_MS": "5"}
    assert load(env=env).kafka.properties == {"log_level": "3", "linger.ms": "5"}
    (line,) = mistakes(None, env={"OUTBOXD_KAFKA__LOG_LEVELS": "3"})
    assert "kafka.log.levels: no such property of librdkafka" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enable.idempotence", "false"), ("acks", "1"), ("acks", "0"), ("request.required.acks", "1"),
        ("message.timeout.ms", "30000"), ("delivery.timeout.ms", "120000"), ("transactional.id", "mine"),
        ("max.in.flight", "6"), ("max.in.flight.requests.per.connection", "1000"), ("enable.gapless.guarantee", "true"),
        ("retries", "3"), ("message.send.max.retries", "0"), ("delivery.report.only.error", "true"),
        ("delivery.report.only.error", "false"),
        ("queuing.strategy", "lifo"), ("partitioner", "random"), ("dr_cb", "f"), ("on_delivery", "f"),
        ("error_cb", "f"), ("plugin.library.paths", "libx.so"), ("default.topic.config", "x"), ("logger", "x"),
    ],
)  # fmt: skip
def test_a_property_that_would_void_a_guarantee_is_refused_with_the_reason(key: str, value: str) -> None:
    (line,) = mistakes(None, {f"kafka.{key}": value})
    assert f"kafka.{key}: {value!r} is refused: " in line
    assert "; allowed: " in line


@pytest.mark.parametrize(
    ("key", "value"),
    [("partitioner", "nope"), ("partitioner", ""), ("queuing.strategy", "fifo "), ("acks", " all")],
)
def test_what_no_guard_refuses_the_client_judges(key: str, value: str) -> None:
    (line,) = mistakes(None, {f"kafka.{key}": value})
    assert f"kafka.{key}: refused by librdkafka: Invalid value" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enable.idempotence", "true"), ("acks", "all"), ("acks", "-1"), ("message.timeout.ms", "0"),
        ("max.in.flight", "5"), ("partitioner", "murmur2_random"), ("linger.ms", "20"),
        ("security.protocol", "SASL_SSL"), ("batch.num.messages", "1"),
    ],
)  # fmt: skip
def test_a_harmless_property_is_passed_on_as_it_is(key: str, value: str) -> None:
    assert load(None, {f"kafka.{key}": value}, {}).kafka.properties == {key: value}


def test_kafka_properties_come_quoted_nested_or_from_the_environment(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[kafka]\n"bootstrap.servers" = "a:1"\nlinger.ms = 5\n"socket.keepalive.enable" = true\nsasl.username = "u"\n',
    )
    env = {"OUTBOXD_KAFKA__SASL_PASSWORD": "p", "OUTBOXD_KAFKA__security.protocol": "SASL_SSL"}
    found = load(path, {"kafka.sasl.mechanism": "PLAIN"}, env)
    assert found.kafka.properties == {
        "bootstrap.servers": "a:1",
        "linger.ms": "5",
        "socket.keepalive.enable": "true",
        "sasl.username": "u",
        "sasl.password": "p",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
    }
    assert str(found.origin("kafka.sasl.username")) == f"{path}:5"


def test_what_needs_kafka_is_told_how_to_name_the_brokers() -> None:
    assert load(None, {"kafka.bootstrap.servers": "a:1,b:2"}, {}).kafka.bootstrap_servers == "a:1,b:2"
    with pytest.raises(ConfigError, match=r"kafka.bootstrap.servers is not set; .*OUTBOXD_KAFKA__BOOTSTRAP_SERVERS"):
        _ = Settings().kafka.bootstrap_servers


def test_missing_brokers_are_told_together_with_all_other_mistakes_and_with_their_place(tmp_path: Path) -> None:
    def told(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(write(tmp_path, text), {}, {}, needs_brokers=True)
        return str(caught.value).splitlines()

    path = tmp_path / "outboxd.toml"
    _, missing, other = told("[relay]\nbatch_rows = 0\n")
    assert missing.startswith(f'  {path}: kafka.bootstrap.servers: is not set; write "bootstrap.servers" = "HOST:9092"')
    assert other.startswith(f"  {path}:2: relay.batch_rows: ")
    (empty,) = told("[kafka]\n'bootstrap.servers' = ''\n")
    assert f"{path}:2: kafka.bootstrap.servers: is not set" in empty
    with pytest.raises(ConfigError, match=r"default: kafka\.bootstrap\.servers: is not set"):
        load(None, {}, {}, needs_brokers=True)
    env = {"OUTBOXD_KAFKA__METADATA_BROKER_LIST": "a:1"}
    assert load(None, {}, env, needs_brokers=True).kafka.bootstrap_servers == "a:1"
    assert load(None, {}, {}).kafka.properties == {}


@pytest.mark.parametrize(
    "text", ["[kafka]\nbootstrap.serverz = 'a:1'", "[kafka]\n'bootstrap.servers' = ['a', 'b']", "kafka = 5", "["]
)
def test_brokers_are_not_told_missing_where_a_mistake_may_be_why(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {}, {}, needs_brokers=True)
    assert "is not set" not in str(caught.value)


def test_a_secret_is_read_from_its_file_without_the_newline_at_its_end(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush \n\n")
    path = write(tmp_path, f"[database]\npassword_file = '{secret}'\n[kafka]\n'sasl.password_file' = '{secret}'\n")
    found = load(
        path, env={"OUTBOXD_HTTP__TOKEN_FILE": str(secret), "OUTBOXD_KAFKA__SSL_KEY_PASSWORD_FILE": str(secret)}
    )
    assert found.database.password == "hush \n"
    assert found.http.token == "hush \n"
    assert found.kafka.properties == {"sasl.password": "hush \n", "ssl.key.password": "hush \n"}
    assert str(found.origin("database.password")) == f"{path}:2 (read from {secret})"


def test_a_higher_layer_overrides_a_secret_given_by_a_file_below(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("below")
    path = write(tmp_path, f"[database]\npassword_file = '{secret}'\n")
    assert load(path, env={"OUTBOXD_DATABASE__PASSWORD": "above"}).database.password == "above"


@pytest.mark.parametrize("source", ["flag", "environment", "credential"])
def test_of_the_files_with_a_secret_only_the_one_that_wins_is_read(tmp_path: Path, source: str) -> None:
    good = tmp_path / "good"
    good.write_text("above")
    path = write(
        tmp_path, "[database]\npassword_file = '/nonexistent/pw'\n[kafka]\n'sasl.password_file' = '/nonexistent/pw'\n"
    )
    directory = tmp_path / "credentials"
    directory.mkdir()
    names = ("database.password_file", "kafka.sasl.password_file")
    if source == "credential":
        for name in names:
            (directory / name).write_text(str(good))
    variables = {"OUTBOXD_DATABASE__PASSWORD": "above", "OUTBOXD_KAFKA__SASL_PASSWORD_FILE": str(good)}
    env = {"CREDENTIALS_DIRECTORY": str(directory)} | (variables if source == "environment" else {})
    found = load(path, dict.fromkeys(names, str(good)) if source == "flag" else {}, env)
    assert found.database.password == found.kafka.properties["sasl.password"] == "above"
    assert found.origin("database.password").source == source


def test_a_file_named_above_wins_over_a_secret_given_below_and_an_empty_name_takes_a_file_away(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_text("above")
    path = write(tmp_path, "[database]\npassword = 'below'\n[http]\ntoken_file = '/nonexistent/token'\n")
    env = {"OUTBOXD_DATABASE__PASSWORD_FILE": str(good), "OUTBOXD_HTTP__TOKEN_FILE": ""}
    found = load(path, env=env)
    assert (found.database.password, found.http.token) == ("above", "")


@pytest.mark.parametrize("is_in_file", [False, True])
@pytest.mark.parametrize("source", ["environment", "credential"])
def test_a_password_wins_over_that_of_a_url_below_and_yields_to_that_of_a_url_above(
    tmp_path: Path, source: str, is_in_file: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("beside")
    directory = tmp_path / "credentials"
    directory.mkdir()
    key, value = ("database.password_file", str(secret)) if is_in_file else ("database.password", "beside")
    env = {"CREDENTIALS_DIRECTORY": str(directory)}
    if source == "environment":
        env[f"OUTBOXD_{key.upper().replace('.', '__')}"] = value
    else:
        (directory / key).write_text(value)
    path = write(tmp_path, "[database]\nurl = 'postgresql://u:within@h/d'\n")
    found = load(path, {}, env)
    assert found.database.password == "beside"
    assert found.origin("database.password").source == source

    path = write(tmp_path, f"[database]\n{key.removeprefix('database.')} = '{value}'\n")
    found = load(path, {}, {"OUTBOXD_DATABASE__URL": "postgresql://u@h/d?password=within"})
    assert found.database.password == ""
    assert str(found.origin("database.password")) == "default"
    found = load(path, {"database.url": "postgresql://u@h/d"}, {"OUTBOXD_DATABASE__URL": "postgresql://u:within@h/d"})
    assert found.database.password == "beside"


def test_a_password_together_with_a_url_that_has_one_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "[database]\nurl = 'postgresql://u:within@h/d'\npassword = 'beside'\n")
    (line,) = mistakes(path)
    assert line.startswith(f"{path}:3: database.password: given together with a password in database.url; allowed: one")
    path = write(tmp_path, "[database]\nurl = 'postgresql://u:within@h/d'\npassword_file = '/nonexistent'\n")
    (line,) = mistakes(path)
    assert "database.password_file: given together with a password in database.url" in line
    path = write(tmp_path, "[database]\nurl = 'postgresql://u:within@h/d'\npassword = ''\n")
    assert load(path, env={}).database.password == ""


def test_credentials_give_secrets_and_others_files_among_them_are_left_alone(tmp_path: Path) -> None:
    for name in ("database.password", "http.token", "kafka.sasl.password"):
        (tmp_path / name).write_text(f"secret of {name}\n")
    for name in ("kafka.ca.bundle", "postgresql.key", "database", "plain"):
        (tmp_path / name).write_text("not ours")
    found = load(env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert found.database.password == "secret of database.password"
    assert found.http.token == "secret of http.token"
    assert found.kafka.properties == {"sasl.password": "secret of kafka.sasl.password"}


def test_a_misspelt_credential_is_told_with_what_was_meant(tmp_path: Path) -> None:
    for name in ("http.tokn", "database.unrelated", "kafka.sasl.pasword"):
        (tmp_path / name).write_text("hush")
    told = mistakes(None, env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert [line.partition("; allowed: ")[0].partition(": ")[2] for line in told] == [
        "database.unrelated: no such key",
        "http.tokn: no such key; did you mean token?",
        "kafka.sasl.pasword: no such property of librdkafka; did you mean sasl.password?",
    ]
    assert "hush" not in str(told)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUTBOXD_RELAY_BATCH_ROWS", "OUTBOXD_RELAY__BATCH_ROWS"),
        ("OUTBOXD_DATABASE_SCHEMA", "OUTBOXD_DATABASE__SCHEMA"),
        ("OUTBOXD_KAFKA_BOOTSTRAP_SERVERS", "OUTBOXD_KAFKA__BOOTSTRAP_SERVERS"),
        ("OUTBOXD_KAFKA_SASL_PASSWORD_FILE", "OUTBOXD_KAFKA__SASL_PASSWORD_FILE"),
    ],
)
def test_a_variable_of_a_setting_with_one_underscore_is_told_with_what_was_meant(name: str, meant: str) -> None:
    (line,) = mistakes(None, env={name: "hush"})
    assert line == f"environment {name}: has one underscore after the section; did you mean {meant}?"


def test_variables_that_name_no_setting_are_left_alone() -> None:
    # Those of outboxd itself, of its tests, and what an orchestrator makes of a service called outboxd.
    names = (
        "OUTBOXD_DEBUG", "OUTBOXD_CHAOS", "OUTBOXD_TEST_ROWS", "OUTBOXD_", "OUTBOXD_RELAY", "OUTBOXD_KAFKA_",
        "OUTBOXD_PORT", "OUTBOXD_SERVICE_HOST", "OUTBOXD_HTTP_PORT_9464_TCP_ADDR", "OUTBOXD_KAFKA_SERVICE_PORT",
    )  # fmt: skip
    assert load(env=dict.fromkeys(names, "1")) == Settings()


def test_a_secret_file_that_cannot_be_read_or_is_given_twice_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    (line,) = mistakes(None, env={"OUTBOXD_DATABASE__PASSWORD_FILE": str(missing)})
    assert f"database.password_file: {missing} cannot be read: No such file or directory" in line
    (line,) = mistakes(write(tmp_path, "[http]\ntoken = 'a'\ntoken_file = 'b'\n"))
    assert "http.token_file: given together with http.token; allowed: one of the two" in line


def test_a_file_for_a_property_of_kafka_is_named_by_a_text_and_for_a_property_that_there_is(tmp_path: Path) -> None:
    (line,) = mistakes(write(tmp_path, "[kafka]\n'sasl.password_file' = 42\n"))
    assert "kafka.sasl.password_file: not the path of a file" in line
    (line,) = mistakes(write(tmp_path, "[kafka]\n'sasl.pasword_file' = ''\n"))
    assert "no such property" in line
    assert load(write(tmp_path, "[kafka]\n'sasl.password_file' = ''\n"), {}, {}).kafka.properties == {}


def test_a_file_for_a_property_of_kafka_that_there_is_not_is_told_once_with_its_place(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    path = write(tmp_path, f"[kafka]\n'sasl.pasword_file' = '{secret}'\n'ssl.key.pem_file' = 42\n")
    misspelt, number = mistakes(path)
    assert f"{path}:2: kafka.sasl.pasword_file: no such property of librdkafka" in misspelt
    assert f"{path}:3: kafka.ssl.key.pem_file: not the path of a file" in number
    (line,) = mistakes(None, {"kafka.sasl.pasword_file": str(secret)})
    assert "flag --set kafka.sasl.pasword_file: kafka.sasl.pasword_file: no such property" in line


def test_a_secret_is_not_taken_from_flags_where_ps_would_show_it() -> None:
    (line,) = mistakes(None, {"database.password": "hunter2"})
    assert "is seen by `ps`" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka.sasl.password", "hush"),
        ("kafka.ssl.key.pem", "hush"),
        ("database.url", "postgresql://u:hush@h/d"),
        ("database.url", "postgresql://u@h/d?sslpassword=hush"),
        ("alerts.command", "curl https://u:hush@h/"),
    ],
)
def test_no_form_of_a_secret_is_taken_from_the_arguments_nor_repeated(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, env={}, flags={name: value})
    assert "is seen by `ps`" in str(caught.value)
    assert "hush" not in str(caught.value)
    load(None, env={}, flags={"database.url": "postgresql://u@h/d?sslmode=prefer"})


def test_an_address_that_others_reach_is_fine_with_a_token() -> None:
    found = load(None, {"http.listen": "[::]:0"}, {"OUTBOXD_HTTP__TOKEN": "t"})
    assert found.http.address == ("::", 0)
    assert load(None, {"http.listen": ""}, {}).http.address is None


def test_routes_keep_their_order_and_override_retries(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[[route]]\ntopic = 'a.*'\nconfirm = 'each'\nretry.max_attempts = 3\n"
        "[[route]]\ntopic = 'b'\non_dead_letter = 'hold-key'\n[route.retry]\nmax_age = '1h'\n",
    )
    found = load(path, {"retry.backoff_max": "1m"}, {})
    assert [route.topic for route in found.routes] == ["a.*", "b"]
    first, second = (route.effective_retry(found.retry) for route in found.routes)
    assert (first.max_attempts, first.max_age_seconds, first.backoff_max_seconds) == (3, 0.0, 60.0)
    assert (second.max_attempts, second.max_age_seconds, second.backoff_max_seconds) == (10, 3600.0, 60.0)
    assert str(found.origin("route[0].retry.max_attempts")) == f"{path}:4"
    (line,) = mistakes(path, {"route.topic": "x"})
    assert "routes are an ordered list; allowed: in the file only" in line


def test_bounds_hold_for_settings_made_in_code_too() -> None:
    assert Settings(relay=RelaySettings(batch_rows=1, sweep_interval_seconds=0.5)).relay.sweep_interval_seconds == 0.5
    with pytest.raises(ValueError, match="0 is too small"):
        RelaySettings(batch_rows=0)
    with pytest.raises(ValueError, match="is above backoff_max"):
        RetrySettings(backoff_initial_seconds=10, backoff_max_seconds=1)
    with pytest.raises(ValueError, match="can lose records"):
        Settings(relay=RelaySettings(delivery="exactly-once"), routes=(RouteSettings(topic="x", confirm="none"),))


# Every option that load takes, with anything at all for a value: it is taken or refused, and never anything else.
_KEYS = [f"{section}.{key}" for section, model in SECTIONS.items() for key in model.fields_by_key()]
_KEYS += ["kafka.linger.ms", "kafka.x", "x.y"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(_KEYS), st.text(max_size=30), max_size=5))
def test_no_text_makes_loading_fail_otherwise_than_with_a_configuration_error(flags: dict[str, str]) -> None:
    try:
        load(None, flags, {})
    except ConfigError as error:
        assert str(error).startswith("the configuration has ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_no_file_makes_loading_fail_otherwise_than_with_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(content)
    try:
        load(path, {}, {})
    except ConfigError as error:
        assert str(error).startswith("the configuration has ")
