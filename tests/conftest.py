"""What holds for all tests."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile(
    "patient",
    settings(),
    deadline=None,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that none of them is what all wait for in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all modules before garbage is looked for."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _without_the_garbage_of_others() -> None:
    """Never look for garbage among what was there before a file's tests.

    Tests that collect garbage, hundreds of times, would otherwise go through the objects of every
    client that there is, and through all that the tests before them have left.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a certificate for 127.0.0.1, one for all nodes, and of its key."""
    place = tmp_path_factory.mktemp("certificate")
    names = place / "certificate.pem", place / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=nodes -addext subjectAltName=IP:127.0.0.1 -out {names[0]} -keyout {names[1]}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return names
