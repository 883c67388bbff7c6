"""The benchmarks of loadwise alone, by name."""

from __future__ import annotations

from benchmarks.above_floor import above_floor
from benchmarks.balancer import operations
from benchmarks.changes import building, changes
from benchmarks.grpc_calls import grpc_calls
from benchmarks.hosts import hosts
from benchmarks.memory import memory
from benchmarks.model import Subject
from benchmarks.quotas import quotas
from benchmarks.simulator import simulator
from benchmarks.startup import startup
from benchmarks.strategies import acquire_and_release, select_on_list, select_on_node_set
from benchmarks.threads import threads
from benchmarks.transport import transport
from benchmarks.waiting import waiting

__all__ = ["SUBJECTS"]

SUBJECTS: dict[str, Subject] = {
    "select": select_on_node_set,
    "select-list": select_on_list,
    "floors": above_floor,
    "acquire": acquire_and_release,
    "balancer": operations,
    "host": hosts,
    "waiting": waiting,
    "building": building,
    "changes": changes,
    "quota": quotas,
    "threads": threads,
    "memory": memory,
    "startup": startup,
    "transport": transport,
    "grpc": grpc_calls,
    "simulator": simulator,
}
