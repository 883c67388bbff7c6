"""The scripts that run on the server: each is atomic there, and one round trip."""

from __future__ import annotations

import hashlib
from importlib.resources import files

__all__ = ["HEALTH_PUT", "HEALTH_READ", "QUOTA", "STORE_PUT", "Script"]


class Script:
    """A script's text, and the digest that the server knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, name: str) -> None:
        self.text = files("loadwise.integrations.redis").joinpath(name).read_bytes()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


QUOTA = Script("quota.lua")
HEALTH_PUT = Script("health_put.lua")
HEALTH_READ = Script("health_read.lua")
STORE_PUT = Script("store_put.lua")
