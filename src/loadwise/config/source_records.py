"""Records of sources: where a fleet's nodes are listed, and how they are followed."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from loadwise._tables.fields import PositiveSeconds, Seconds, TableRecord

__all__ = ["ConsulNodes", "DnsNodes", "FileNodes", "KubernetesNodes", "Name", "SourceTable"]

Name = Annotated[
    str,
    Meta(min_length=1, max_length=1000, description="a text in quotes of 1 to 1000 characters"),
]
Port = Annotated[int, Meta(ge=1, le=65_535, description="a whole number")]


class _Followed(TableRecord, frozen=True):
    """A source that is followed while the program runs.

    Attributes:
        timeout: Seconds that `load_balancer` waits for the first answer at most; 0 for not at all.
        debounce: Seconds from the first sign of a change until it is applied.
        hold_back: Seconds for which nodes are kept when half of the fleet or more is gone at once;
            by default that is believed at once, and logged.
        allow_empty: Whether an answer without nodes empties the fleet.
        cache: File that keeps the last good answer over a restart; none by default. A relative path
            is relative to the fleet file.
    """

    timeout: Seconds = 5.0
    debounce: Seconds = 0.1
    hold_back: Seconds | None = None
    allow_empty: bool = False
    cache: Name | None = None


class FileNodes(_Followed, frozen=True, kw_only=True, tag="file", tag_field="kind"):
    """Nodes that a TOML or JSON file of nodes lists.

    Attributes:
        path: The file; a relative path is relative to the fleet file.
        interval: Seconds between two looks at it.
    """

    path: Name
    interval: PositiveSeconds = 1.0


class DnsNodes(_Followed, frozen=True, kw_only=True, tag="dns", tag_field="kind"):
    """Nodes that DNS lists under a name.

    Attributes:
        name: The name; one that begins with ``_`` has SRV records.
        type: ``"A"``, ``"AAAA"`` or ``"SRV"``; by default what the name says, A and AAAA together.
        port: The port of all nodes, for A and AAAA.
    """

    name: Name
    type: (
        Annotated[str, Meta(pattern=r"^(A|AAAA|SRV)\Z", description='"A", "AAAA" or "SRV"')] | None
    ) = None
    port: Port | None = None


class KubernetesNodes(_Followed, frozen=True, kw_only=True, tag="kubernetes", tag_field="kind"):
    """Nodes that are the endpoints of a service of Kubernetes.

    Attributes:
        service: The service's name.
        namespace: Its namespace; that of the pod by default.
        port: A port of the service by its name, or a number; by default its only port.
        url: Of the API server; by default as pods are told.
    """

    service: Name
    namespace: Name | None = None
    port: Port | Name | None = None
    url: Name | None = None


class ConsulNodes(_Followed, frozen=True, kw_only=True, tag="consul", tag_field="kind"):
    """Nodes that Consul lists for a service, and whose checks all pass.

    A token comes from ``CONSUL_HTTP_TOKEN`` or ``CONSUL_HTTP_TOKEN_FILE``, and not from here.

    Attributes:
        service: The service's name.
        url: Of an agent; by default what ``CONSUL_HTTP_ADDR`` says, or ``http://127.0.0.1:8500``.
        tag: Only instances with this tag.
        datacenter: Whose; the agent's own by default.
        wait: Seconds that a query waits for a change.
    """

    service: Name
    url: Name | None = None
    tag: Name | None = None
    datacenter: Name | None = None
    wait: Annotated[float, Meta(gt=0, le=600, description="a number of seconds")] = 60.0


SourceTable = FileNodes | DnsNodes | KubernetesNodes | ConsulNodes
