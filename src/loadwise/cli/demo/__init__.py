"""``loadwise demo``: real requests over real sockets to real processes, some of which fail."""

from loadwise.cli.demo.command import run_demo

__all__ = ["run_demo"]
