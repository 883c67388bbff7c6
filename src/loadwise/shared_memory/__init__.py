"""One host, one picture: the worker processes of a host share load and health of their nodes."""

from loadwise.shared_memory.host_state import HostState

__all__ = ["HostState"]
