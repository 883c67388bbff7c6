"""Runs the tests on every Python that is found: `nox`, or `nox -s tests-3.12`."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the test suite against the package as users install it."""
    session.install("--requirement", "requirements/dev.txt", ".[cli]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=["3.13t", "3.14t"])
def free_threaded(session: nox.Session) -> None:
    """Run what matters without the GIL: threads, forks, counts, strategies, quotas.

    Such an interpreter is to be had by ``uv python install 3.14t`` or ``pyenv install 3.14t``.
    """
    session.install("pytest", "hypothesis", "pytest-run-parallel", ".")
    tests = ("balancer", "strategies", "load", "health", "quota", "contracts", "properties")
    session.run(
        *(
            "python",
            "-X",
            "gil=0",
            "-m",
            "pytest",
            "--ignore",
            "tests/properties/test_simulation.py",
        ),
        *(session.posargs or [f"tests/{name}" for name in tests]),
    )
