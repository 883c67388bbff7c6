"""Fleets in files: `load_balancer` builds the balancer that a TOML file describes.

>>> from loadwise.config import load_balancer
>>> balancer = load_balancer({"nodes": ["10.0.0.1:8080"], "strategy": "p2c"})
>>> balancer.pick().id
'10.0.0.1:8080'
"""

from __future__ import annotations

try:
    from loadwise.config.building import load_balancer
    from loadwise.config.configured_balancer import ConfiguredBalancer, RetryRule
    from loadwise.config.errors import ConfigError
except ModuleNotFoundError as error:
    if error.name != "msgspec":
        raise
    raise ImportError("loadwise.config needs msgspec: pip install 'loadwise[config]'") from error

__all__ = ["ConfigError", "ConfiguredBalancer", "RetryRule", "load_balancer"]
