"""Builds the wheel; with ``LOADWISE_COMPILE=1``, one whose hot path is compiled by mypyc.

The compiled modules are made from the very sources that are interpreted otherwise, and stand beside
them in the wheel: where Python finds none that fits, it takes the source.

mypyc has no weak references: it gives the instances of some classes the room for them, but does
not clear it when an instance goes, so that whoever still refers to it reads freed memory
(https://github.com/mypyc/mypyc/issues/1102). Balancers and strategies are referred to weakly, so
`_mend` puts into the C code what the C API's documentation asks of a type with weak references.
"""

from __future__ import annotations

import os
import re
import sysconfig
from contextlib import chdir
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "LOADWISE_COMPILE"
# The mend below is made for what this release writes.
RELEASE = "2.4.1"
NEEDED = [f"mypy=={RELEASE}", "setuptools>=65", "xxhash>=3.4"]
# What is called for each request. The rest waits for locks, works in the standard library's C code,
# or is called when something changes.
COMPILED = [
    "balancer/balancer",
    "balancer/fleet",
    "balancer/lease",
    "balancer/outcome_reporting",
    "balancer/slot",
    "balancer/view",
    "load/_gauge",
    "load/in_flight",
    "load/peak_ewma",
    "load/pending_tokens",
    "strategies/_group_plan",
    "strategies/_grouped",
    "strategies/_in_turn",
    "strategies/_keyed",
    "strategies/_load_plans",
    "strategies/_planned",
    "strategies/_prefixed",
    "strategies/_ring_plan",
    "strategies/bounded_loads",
    "strategies/cache_aware",
    "strategies/consistent_hash",
    "strategies/dual_map",
    "strategies/fallback",
    "strategies/filtered",
    "strategies/jump_hash",
    "strategies/least_load",
    "strategies/lmetric",
    "strategies/maglev",
    "strategies/most_available",
    "strategies/power_of_two_choices",
    "strategies/prefix_affinity",
    "strategies/rendezvous",
    "strategies/round_robin",
    "strategies/scored_prefix",
    "strategies/split",
    "strategies/sticky",
    "strategies/tiers",
    "strategies/uniform_random",
    "strategies/weighted_random",
    "strategies/weighted_round_robin",
    "strategies/zones",
]


class CompileHook(BuildHookInterface[BuilderConfig]):
    """Adds the compiled modules to a wheel that is to have them."""

    def dependencies(self) -> list[str]:
        """Return what the build needs beside hatchling."""
        return NEEDED if _wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # values of any kind
        """Compile, unless the sources are installed in place, to be edited."""
        if version == "editable" or not _wanted():
            return
        found = metadata.version("mypy")  # pip --no-build-isolation takes what is there
        if found != RELEASE:
            raise ValueError(f"mypy is {found}; compiling needs {RELEASE}")
        self._folder = TemporaryDirectory(prefix="loadwise-")
        for library in _compile(Path(self.root), Path(self._folder.name)):
            where = library.relative_to(Path(self._folder.name) / "lib")
            build_data["force_include"][str(library)] = str(where)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - the base's
        """Remove what was compiled, which the wheel now holds."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _wanted() -> bool:
    value = os.environ.get(SWITCH, "0")
    if value not in {"0", "1", ""}:
        raise ValueError(f"{SWITCH} is {value!r}; it must be 1 to compile, or 0")
    if value == "1" and sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ValueError(
            f"{SWITCH}=1 needs a Python with the GIL: compiled code relies on it; leave it out here"
        )
    return value == "1"


def _compile(root: Path, folder: Path) -> list[Path]:
    """Compile the modules into ``folder``, and return the libraries."""
    from mypyc.build import mypycify  # noqa: PLC0415 - installed for compiled builds only
    from setuptools import Distribution  # noqa: PLC0415 - as mypyc

    with chdir(root):
        extensions = mypycify(
            [
                "--config-file=",
                "--strict",
                f"--cache-dir={folder / 'cache'}",
                *(f"src/loadwise/{module}.py" for module in COMPILED),
            ],
            target_dir=str(folder / "c"),
            group_name="loadwise",
            opt_level="1",  # 3 takes three times as long to compile and saves no instructions
            debug_level="0",
        )
        for extension in extensions:
            # Checks of generated code for what it warns of take as long as compiling it.
            extension.extra_compile_args.append("-w")
        for source in (folder / "c").rglob("*.c"):
            source.write_text(_mend(source.read_text()))
        command = Distribution({"name": "loadwise", "ext_modules": extensions}).get_command_obj(
            "build_ext"
        )
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
        command.ensure_finalized()
        command.run()
    return sorted(path for path in (folder / "lib").rglob("*") if path.is_file())


def _mend(code: str) -> str:
    """Return C code of mypyc's in which weak references are cleared when an instance goes."""
    # Python up to 3.11: the room is visited and cleared like a reference that the instance owns.
    room = r"*((PyObject **)((char *)self + sizeof(PyObject *) + sizeof("
    code = re.sub(rf"\n *Py_(VISIT|CLEAR)\({re.escape(room)}\w+\)\)\)\);", "", code)
    # Python from 3.12 on: there is no room unless one asks for it.
    code = code.replace(
        "Py_TPFLAGS_MANAGED_DICT", "Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF"
    )
    return code.replace(
        "PyObject_GC_UnTrack(self);",
        "PyObject_GC_UnTrack(self);\n"
        "if (Py_TYPE(self)->tp_weaklistoffset) PyObject_ClearWeakRefs((PyObject *)self);",
    )
