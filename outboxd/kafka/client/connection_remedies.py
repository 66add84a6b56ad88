"""What to do about what the client says of a connection that came to nothing.

The client's words are those of librdkafka 2.16. It names one cause where there may be others, or none at all.
"""

from __future__ import annotations

import re
from typing import Final

from confluent_kafka import KafkaError

CERTIFICATE_REMEDY: Final = (
    "the certificate is of another authority than ssl.ca.location has, or of another host than the one asked, or not "
    "valid at this time: look at it with `openssl s_client`, and at ssl.* of [kafka]"
)
"""The client's own words name the first of these only."""
CREDENTIALS_REMEDY: Final = "look at sasl.* and ssl.* of [kafka]"
WAY_REMEDY: Final = "look at bootstrap.servers, the brokers and the way"

CREDENTIAL_CODES: Final = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_SECURITY_CODES: Final = (*CREDENTIAL_CODES, KafkaError._SSL)

_ADVERTISED: Final = (
    "the address is the one that the brokers advertise (their advertised.listeners): it has to be reached from here too"
)
# The first that fits is told. `/bootstrap` is how the client calls the servers of bootstrap.servers; a broker that
# these named has its number there.
_REMEDIES: Final = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        ("certificate verify failed", CERTIFICATE_REMEDY),
        (
            r"connecting to a PLAINTEXT broker listener|SSL connection closed by peer|wrong version number",
            "what listens there may be without TLS: look at security.protocol of [kafka] and the port",
        ),
        (
            r"^(sasl_plaintext://|(?!\w+://)).*Disconnected.* in state (APIVERSION_QUERY|AUTH_HANDSHAKE)",
            (
                "what listens there may want TLS, and then security.protocol of [kafka] is ssl or sasl_ssl; or it is "
                "no Kafka broker, or a proxy before one that is down"
            ),
        ),
        (
            r"^(ssl://|(?!\w+://)).*Disconnected.* in state UP",
            (
                "a broker that stops hangs up, and so does one that wants a login, where security.protocol of [kafka] "
                "has to be sasl_ssl or sasl_plaintext"
            ),
        ),
        (
            r"Invalid response size .* in state APIVERSION_QUERY",
            (
                "what answers there is no Kafka broker, or wants TLS, whatever size the client proposes: look at the "
                "port, and at security.protocol of [kafka]"
            ),
        ),
        ("Unsupported SASL mechanism", "set sasl.mechanism of [kafka] to one that the brokers support"),
        (
            "not valid in current SASL state",
            "what listens there takes no login: look at security.protocol of [kafka] and the port",
        ),
        (r"/\d+: (Connect to|Failed to resolve|Connection setup timed out)", _ADVERTISED),
        (
            "Failed to resolve",
            "look at the name in bootstrap.servers, and at what resolves names on this machine",
        ),
        (
            "Connection setup timed out in state CONNECT",
            "nothing answers at that address: look at the address, at firewalls on the way and at the machine",
        ),
        (
            r"Connection setup timed out|ApiVersionRequest failed: Local: Timed out",
            (
                "what listens there keeps silent: it stands still, something on the way swallows what is sent, or it "
                "speaks another protocol (security.protocol of [kafka])"
            ),
        ),
        (
            "Connection refused",
            "nothing listens there: look at the address and the port in bootstrap.servers, and whether the broker runs",
        ),
        (
            r"^no answer from ",
            (
                "they neither answer nor refuse: they stand still, something on the way swallows what is sent, or they "
                "speak another protocol (security.protocol of [kafka])"
            ),
        ),
    )
)
_TIMES: Final = re.compile(r"\(after \d+ms in state (\w+)(?:, \d+ identical error\(s\) suppressed)?\)")


def remedy_of(error: KafkaError) -> str:
    """Return what to do about an error of the client's connections."""
    text = error.str()
    for pattern, remedy in _REMEDIES:
        if pattern.search(text):
            return remedy
    return CREDENTIALS_REMEDY if error.code() in _SECURITY_CODES else WAY_REMEDY


def remedy_of_refused(text: str) -> str:
    """Return what to do where no client can be made, by its words."""
    if "ssl.key" in text and "PEM lib" in text:
        return "the key is not in PEM, or ssl.key.password of [kafka] is missing or not the one that it is locked with"
    if "key values mismatch" in text:
        return "the key of ssl.key.location is not that of the certificate of ssl.certificate.location"
    if "No provider for SASL mechanism GSSAPI" in text:
        return (
            "set sasl.mechanism of [kafka] to what the brokers take, such as SCRAM-SHA-512 or PLAIN: without it it is "
            "GSSAPI (Kerberos), which this build of the client has not"
        )
    return "change the property, or look at the file that it names and at its rights"


def without_times(text: str) -> str:
    """Return the client's words without how long it took and how often it was: so each cause is told once."""
    return _TIMES.sub(r"(in state \1)", text)
