"""Fleets that change: nodes from files, DNS, Kubernetes, Consul and functions.

A source lists nodes; a watcher keeps a balancer's nodes those that its source lists.
"""

from loadwise.discovery.async_watcher import AsyncWatcher
from loadwise.discovery.callable_source import CallableSource
from loadwise.discovery.consul_source import ConsulSource
from loadwise.discovery.dns_source import DnsSource
from loadwise.discovery.file_source import FileSource
from loadwise.discovery.keeper import WatchStatus
from loadwise.discovery.kubernetes_source import KubernetesSource
from loadwise.discovery.settings import WatchOptions
from loadwise.discovery.source import Feed, Found, NodeSource, SourceError
from loadwise.discovery.watcher import Watcher

__all__ = [
    "AsyncWatcher",
    "CallableSource",
    "ConsulSource",
    "DnsSource",
    "Feed",
    "FileSource",
    "Found",
    "KubernetesSource",
    "NodeSource",
    "SourceError",
    "WatchOptions",
    "WatchStatus",
    "Watcher",
]
