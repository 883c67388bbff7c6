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

    Such an interpreter is to be had by ``uv python install 3.14t`` or ``pyenv install 3.14t``, or
    from CPython's source by ``./configure --disable-gil``.
    """
    # Not every release of hypothesis has a wheel for such builds, and its source needs Rust.
    session.install("--prefer-binary", "pytest", "hypothesis", "pytest-run-parallel", ".")
    # Whether what is imported brings the GIL back; below it is kept off whatever they say.
    session.run("python", "-c", "import sys, loadwise; assert not sys._is_gil_enabled()")
    tests = (
        *("balancer", "strategies", "load", "health", "quota", "contracts", "properties"),
        *("health_checks", "test_context.py", "test_filters.py", "test_metrics.py"),
        *("test_node_set.py", "test_retry_budget.py", "test_state.py"),
    )
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
