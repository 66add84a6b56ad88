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
    cache = _cache_directory()
    libs = cache / f"libs-{version}"
    if libs.is_dir():
        return libs
    _need("mvn", "Maven, to fetch the broker's jars once", "apt-get install maven")
    with alone_in(cache):
        if not libs.is_dir():
            _fetch(pom, cache, libs)
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
    return libs.with_name(f"{libs.name}-{runtime}.jsa")


def _fetch(pom: Path, cache: Path, libs: Path) -> None:
    """Copy the jars to a temporary directory first: a fetch that was cut short must not look like a complete one."""
    partial = Path(tempfile.mkdtemp(prefix="fetch-", dir=cache))
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


def _cache_directory() -> Path:
    target = _PROJECT / "target"
    if not os.access(target if target.is_dir() else _PROJECT, os.W_OK):
        target = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outboxd" / "kafka-broker"
    target.mkdir(parents=True, exist_ok=True)
    return target


def _need(program: str, what: str, how: str) -> None:
    if shutil.which(program) is None:
        raise KafkaMissingError(f"a real Kafka broker needs {what} (`{program}` is not found); on Debian: {how}")
