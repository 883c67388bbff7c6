"""One host, one picture: the worker processes of a host share load and health of their nodes."""

from loadwise.shared_memory.host_state import HostState
from loadwise.shared_memory.host_status import HostNode, HostProcess, HostStatus
from loadwise.shared_memory.reading import HostFileError, read_host

__all__ = ["HostFileError", "HostNode", "HostProcess", "HostState", "HostStatus", "read_host"]
