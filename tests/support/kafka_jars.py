"""The jars of a real Kafka broker, fetched once through Maven from `tests/kafka-broker/pom.xml`."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent / "kafka-broker"
_FETCH_TIMEOUT_SECONDS = 600


class KafkaMissingError(RuntimeError):
    """What a real broker needs is not on this machine; the message says what, and how to get it."""


def kafka_jars() -> Path:
    """Return the directory with the broker's jars, fetching them when this version was never fetched here.

    It lies in the git-ignored `target/` beside the pom, or in the user's cache when the checkout is read-only, and is
    named after the pom's content: a new version is a new directory. Raises KafkaMissingError.
    """
    _need("java", "a Java runtime of version 17 or later", "apt-get install openjdk-17-jre-headless")
    pom = _PROJECT / "pom.xml"
    version = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    libs = _found_or_to_make(f"libs-{version}")
    if libs.is_dir():
        return libs
    _need("mvn", "Maven, to fetch the broker's jars once", "apt-get install maven")
    with alone_in(libs.parent):
        if not libs.is_dir():
            _fetch(pom, libs)
    return libs


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold a lock against other test runs that would make the same files in `directory`."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def class_archive(libs: Path) -> Path:
    """Return where the archive of the broker's classes, for these jars and this Java, lies or shall lie."""
    java = Path(shutil.which("java") or "java").resolve()
    runtime = hashlib.sha256(f"{java} {java.stat().st_mtime_ns}".encode()).hexdigest()[:8]
    return _found_or_to_make(f"{libs.name}-{runtime}.jsa")


def _fetch(pom: Path, libs: Path) -> None:
    """Copy the jars to a temporary directory first: a fetch that was cut short must not look like a complete one."""
    partial = Path(tempfile.mkdtemp(prefix="fetch-", dir=libs.parent))
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    try:
        fetch = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pom), *goal],
            check=False,
            capture_output=True,
            text=True,
            timeout=_FETCH_TIMEOUT_SECONDS,
        )
        if fetch.returncode != 0:
            raise KafkaMissingError(f"Maven could not fetch the broker's jars: {(fetch.stdout + fetch.stderr)[-2000:]}")
        partial.chmod(0o755)
        partial.rename(libs)
    except subprocess.TimeoutExpired as slow:
        raise KafkaMissingError(f"Maven did not fetch the broker's jars within {_FETCH_TIMEOUT_SECONDS} s") from slow
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _found_or_to_make(name: str) -> Path:
    """Return where `name` is, in the checkout or in the user's cache; else the first of the two that can be written."""
    checkout = _PROJECT / "target"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outboxd" / "kafka-broker"
    for directory in (checkout, cache):
        if os.access(directory / name, os.R_OK):
            return directory / name
    writable = os.access(checkout if checkout.is_dir() else _PROJECT, os.W_OK)
    directory = checkout if writable else cache
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name


def _need(program: str, what: str, how: str) -> None:
    if shutil.which(program) is None:
        raise KafkaMissingError(f"a real Kafka broker needs {what} (`{program}` is not found); on Debian: {how}")
