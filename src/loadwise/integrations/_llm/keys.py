"""Keys of language models' APIs, as the entries of a pool describe them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast

from loadwise._base_url import checked_base_url
from loadwise._numbers import finite
from loadwise.errors import nearest
from loadwise.quota import QuotaConfig, QuotaDimension

__all__ = ["LlmKey", "keys_of"]

LIMITS = ("rpm", "tpm", "itpm", "otpm")
_FIELDS = ("key", "base_url", "models", *LIMITS, "weight", "name", "api_version")
_WINDOW = 60.0
_RESOLUTION = 30  # what was used is free again 2 s late at most
# What a header may have: nobody would send a line break, and an error would show the key.
_SECRET = re.compile(r"[!-~]+")
_VERSION = re.compile(r"[A-Za-z0-9.-]+")
_HOST = re.compile(r"https?://([^/:?#@]+)")


class LlmKey:
    """A key, where it is good, and for which models: a node of a pool.

    Attributes:
        id: Its name, by which logs and metrics call it.
        base_url: Where its provider's API begins.
        weight: Its share of the traffic, in relation to the others'.
        models: The provider's names of its models by those that are asked for; ``None`` if it is
            good for all.
        api_version: The version of Azure's API; ``None`` for other providers.

    The key itself is shown nowhere.
    """

    __slots__ = ("_secret", "api_version", "base_url", "id", "limits", "models", "weight")

    def __init__(self, place: int, entry: Mapping[str, object]) -> None:
        for field in entry:
            if field not in _FIELDS:
                raise ValueError(
                    f"keys[{place}] has an unknown field{_shown(field)}{nearest(field, _FIELDS)} "
                    f"(the fields are {', '.join(_FIELDS)})"
                )
        self._secret = _secret_of(place, entry)
        url = _url_of(place, entry)
        self.api_version = _text(place, entry, "api_version", _VERSION)
        host = _HOST.match(url)
        default = f"#{place}" if host is None else f"{host[1]}#{place}"
        self.id = _text(place, entry, "name") or default
        if self._secret in self.id:
            raise ValueError(f"keys[{place}]: the name has the key in it; logs would show it")
        self.base_url = checked_base_url(self.id, url, f"keys[{place}]: base_url")
        self.weight = _positive(place, entry, "weight") or 1.0
        self.models = _models_of(place, entry)
        self.limits = {
            name: limit for name in LIMITS if (limit := _positive(place, entry, name)) is not None
        }

    @property
    def credentials(self) -> str:
        """The key itself, to be sent."""
        return self._secret

    def serves(self, model: str) -> bool:
        """Tell whether a model may be asked for with it."""
        return self.models is None or model in self.models

    def quota(self) -> QuotaConfig | None:
        """Return its limits; ``None`` without any."""
        if not self.limits:
            return None
        return QuotaConfig(
            QuotaDimension(
                name,
                limit,
                _WINDOW,
                resolution=_RESOLUTION,
                default_cost=min(1, limit) if name == "rpm" else 0,
            )
            for name, limit in self.limits.items()
        )

    def is_same(self, other: LlmKey) -> bool:
        """Tell whether another one is the same key for a model that this one is for, too."""
        if (self._secret, self.base_url) != (other._secret, other.base_url):
            return False
        if self.models is None or other.models is None:
            return True
        return not self.models.keys().isdisjoint(other.models)

    def __repr__(self) -> str:
        return f"<LlmKey {self.id!r}>"

    def __reduce__(self) -> str:
        raise TypeError(f"key {self.id!r} is not pickled, because its secret would be shown")


def keys_of(entries: object) -> list[LlmKey]:
    """Return the keys that the entries of a pool describe.

    Raises:
        TypeError: An entry, or a field of it, is of the wrong type.
        ValueError: A field is missing, not known or out of range, or a key is there twice.
    """
    kind: type[object] = type(entries)
    if issubclass(kind, str | bytes | Mapping) or not isinstance(entries, Iterable):
        raise TypeError(
            f"keys is a {kind.__name__}; it must be a list of mappings, each with a "
            f'"key" and a "base_url"'
        )
    keys: list[LlmKey] = []
    for place, entry in enumerate(cast("Iterable[object]", entries)):
        if not isinstance(entry, Mapping):
            raise TypeError(
                f"keys[{place}] is a {type(entry).__name__}; it must be a mapping with a "
                f'"key" and a "base_url"'
            )
        key = LlmKey(place, cast("Mapping[str, object]", entry))
        for before, other in enumerate(keys):
            if other.id == key.id:
                raise ValueError(f"keys[{before}] and keys[{place}] are both named {key.id!r}")
            if other.is_same(key):
                raise ValueError(
                    f"keys[{before}] and keys[{place}] are the same key for the same models, so "
                    f"its limits would count twice; keep one of them, or give each its models"
                )
        keys.append(key)
    if not keys:
        raise ValueError("keys is empty; a pool needs one key at least")
    return keys


def _shown(field: object) -> str:
    # What is no name may be the key, in the wrong place.
    return f" {field!r}" if isinstance(field, str) and field.isidentifier() else ""


def _secret_of(place: int, entry: Mapping[str, object]) -> str:
    if "key" not in entry:
        raise ValueError(f'keys[{place}] has no "key"')
    secret = entry["key"]
    if not isinstance(secret, str):
        raise TypeError(f'keys[{place}]: "key" is a {type(secret).__name__}; it must be a str')
    if _SECRET.fullmatch(secret) is None:
        raise ValueError(
            f'keys[{place}]: "key" is empty, or has a space, a line break or a letter in it that '
            f"no header may have; is it the right environment variable, stripped?"
        )
    return secret


def _url_of(place: int, entry: Mapping[str, object]) -> str:
    if "base_url" not in entry:
        raise ValueError(
            f'keys[{place}] has no "base_url", such as "https://api.openai.com/v1" or '
            f'"https://api.anthropic.com"'
        )
    url = entry["base_url"]
    if not isinstance(url, str):
        raise TypeError(f'keys[{place}]: "base_url" is a {type(url).__name__}; it must be a str')
    if not {"@", "?", "#"}.isdisjoint(url):  # what follows may be a secret
        raise ValueError(
            f'keys[{place}]: "base_url" has a user name, a query or a fragment; give the URL that '
            f'stands before the path of each request, the secret as "key", and Azure\'s version as '
            f'"api_version"'
        )
    return url.rstrip("/")


def _text(
    place: int, entry: Mapping[str, object], field: str, pattern: re.Pattern[str] | None = None
) -> str | None:
    text = entry.get(field)
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f'keys[{place}]: "{field}" is a {type(text).__name__}; it must be a str')
    if not text or (pattern is not None and pattern.fullmatch(text) is None):
        raise ValueError(f'keys[{place}]: "{field}" is empty, or has characters that it may not')
    return text


def _positive(place: int, entry: Mapping[str, object], field: str) -> float | None:
    given = entry.get(field)
    if given is None:
        return None
    if not isinstance(given, int | float):  # it may be the key, in the wrong place
        raise TypeError(
            f'keys[{place}]: "{field}" is a {type(given).__name__}; it must be a number'
        )
    number = finite(f"keys[{place}]: {field}", given)
    if not number > 0:
        raise ValueError(f"keys[{place}]: {field} is {given!r}; it must be finite and above 0")
    return number


def _models_of(place: int, entry: Mapping[str, object]) -> Mapping[str, str] | None:
    given = entry.get("models")
    if given is None:
        return None
    if isinstance(given, Mapping):
        models = dict(cast("Mapping[object, object]", given))
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        models = {name: name for name in cast("Iterable[object]", given)}
    else:
        raise TypeError(
            f'keys[{place}]: "models" is a {type(given).__name__}; it must be a list of names, or '
            f"a mapping from the names that are asked for to the provider's own"
        )
    for name in (*models, *models.values()):
        if not isinstance(name, str) or not name:
            raise TypeError(f'keys[{place}]: "models" has a name that is no str, or empty')
    if not models:
        raise ValueError(f'keys[{place}]: "models" is empty; leave it out for all models')
    return cast("Mapping[str, str]", models)
