"""Source that is a service of Kubernetes, by its EndpointSlices: listed once, then watched."""

from __future__ import annotations

import os
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from loadwise._numbers import shown
from loadwise.discovery.addresses import as_port
from loadwise.discovery.endpoint_slices import Port
from loadwise.discovery.source import Feed, SourceError
from loadwise.node_list import text_fault
from loadwise.nodes import Endpoint

__all__ = ["KubernetesSource"]

_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


class KubernetesSource:
    """Nodes that are the endpoints of a service of Kubernetes.

    Args:
        service: The service's name.
        namespace: Its namespace; that of the pod's own service account by default.
        port: A port of the service by its name, or a number; by default its only port.
        url: Of the API server; by default the one that ``KUBERNETES_SERVICE_HOST`` and
            ``KUBERNETES_SERVICE_PORT`` tell each pod of. With ``kubectl proxy`` it is
            ``http://127.0.0.1:8001``.
        account: Folder with the files of the service account: ``token``, ``ca.crt`` and
            ``namespace``. The token is read again for each request, because it is renewed. Files
            that are not there are done without, for ``kubectl proxy``.

    Raises:
        ImportError: httpx2 is missing.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or nobody says where the API server is.

    A node's id is ``address:port``; its zone is the endpoint's, and its tags are ``pod``, ``node``
    and ``hostname``. Who is ready is a node. Who is ending, but still serves, is drained if it was
    one. If nobody is ready, those that are ending and serve are asked, as kube-proxy does.

    The service account needs the verbs ``list`` and ``watch`` of ``endpointslices`` in
    ``discovery.k8s.io``. Needs httpx2: ``pip install 'loadwise[kubernetes]'``.

    Thread-safety: immutable.

    Source: "Efficient detection of changes" in the Kubernetes API concepts, and the reference of
    EndpointSlice, discovery.k8s.io/v1.

    Example:
        >>> KubernetesSource("search", namespace="shop", url="http://127.0.0.1:8001")
        KubernetesSource('search', namespace='shop')
    """

    def __init__(
        self,
        service: str,
        *,
        namespace: str | None = None,
        port: Port = None,
        url: str | None = None,
        account: str | os.PathLike[str] = _ACCOUNT,
    ) -> None:
        if find_spec("httpx2") is None:
            raise ImportError("KubernetesSource needs httpx2: pip install 'loadwise[kubernetes]'")
        from loadwise.discovery.http_client import base_url  # noqa: PLC0415 - needs an extra

        self._service = _checked("service", service)
        self._namespace = None if namespace is None else _checked("namespace", namespace)
        if not isinstance(port, str | None):
            as_port("port", port)
        elif port is not None:
            _checked("port", port)
        self._port = port
        self._url = _in_cluster() if url is None else base_url(url, "url")
        try:
            self._account = Path(account)
        except TypeError:
            raise TypeError(
                f"account is {shown(account)}; it must be the path of a folder"
            ) from None

    def open(self) -> Feed[Endpoint]:
        """Return a new feed.

        Raises:
            SourceError: There is no namespace, or the files of the account cannot be used.
        """
        from loadwise.discovery.http_client import HttpClient  # noqa: PLC0415 - needs an extra
        from loadwise.discovery.kubernetes_feed import KubernetesFeed  # noqa: PLC0415 - as above

        namespace = self._namespace or self._read("namespace")
        if not namespace:
            raise SourceError(
                f"{self._account / 'namespace'} is not there: this is no pod with a service "
                f"account, so give namespace="
            )
        return KubernetesFeed(
            HttpClient(self._url, self._verify()),
            _checked("namespace", namespace),
            self._service,
            self._port,
            lambda: self._read("token"),
        )

    def __repr__(self) -> str:
        namespace = "" if self._namespace is None else f", namespace={self._namespace!r}"
        port = "" if self._port is None else f", port={self._port!r}"
        return f"KubernetesSource({self._service!r}{namespace}{port})"

    def _verify(self) -> ssl.SSLContext | None:
        path = self._account / "ca.crt"
        if not path.exists():
            return None
        try:
            return ssl.create_default_context(cafile=str(path))
        except (OSError, ssl.SSLError) as error:
            raise SourceError(f"{path} holds no certificates: {error}") from None

    def _read(self, name: str) -> str:
        path = self._account / name
        try:
            return path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None


def _in_cluster() -> str:
    from loadwise.discovery.http_client import base_url  # noqa: PLC0415 - needs an extra

    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not host:
        raise ValueError(
            "url is missing, and KUBERNETES_SERVICE_HOST is not set: outside of a pod give url=, "
            "such as 'http://127.0.0.1:8001' with kubectl proxy"
        )
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    place = f"[{host}]" if ":" in host else host
    return base_url(f"https://{place}:{port}", "KUBERNETES_SERVICE_HOST")


def _checked(name: str, given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{name} is {shown(given)}; it must be a str")
    fault = text_fault(given)
    if fault is None and not set("/?#,=%") & set(given):
        return given
    raise ValueError(f"{name} is {shown(given)}; it must be a name of Kubernetes, such as 'search'")
