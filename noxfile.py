"""Runs the tests on every Python that is found: `nox`, or `nox -s tests-3.12`."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the test suite against the package as users install it."""
    session.install("--requirement", "requirements/dev.txt", ".[cli]")
    session.run("python", "-m", "pytest", *session.posargs)
