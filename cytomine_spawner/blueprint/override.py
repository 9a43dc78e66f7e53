"""Merging an administrator's partial object into a rendered one."""

from __future__ import annotations

from typing import Any

# The field by which items of a list are told apart; "name" where not said.
_KEYS = {"volumeMounts": "mountPath", "ports": "name", "tolerations": "key"}
_DIRECTIVE = "$patch"


def merge(base: dict[str, Any], patch: dict[str, Any]) -> None:
    """Change ``base`` in place: maps by key, lists of named items by name, all else is replaced.

    None removes a key, ``{"name": ..., "$patch": "delete"}`` an item of a list, and ``{"$patch": "replace", ...}``
    takes the place of a whole map.
    """
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and value.get(_DIRECTIVE) == "replace":
            base[key] = {k: v for k, v in value.items() if k != _DIRECTIVE}
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        elif isinstance(value, list) and isinstance(base.get(key), list):
            base[key] = _merge_lists(base[key], value, _KEYS.get(key, "name"))
        else:
            base[key] = _clean(value)


def _merge_lists(base: list[Any], patch: list[Any], key: str) -> list[Any]:
    if not all(isinstance(item, dict) and key in item for item in [*base, *patch]):
        return list(patch)
    items = {item[key]: item for item in base}
    for item in patch:
        if item.get(_DIRECTIVE) == "delete":
            items.pop(item[key], None)
        elif item[key] in items:
            merge(items[item[key]], item)
        else:
            items[item[key]] = _clean(item)
    return list(items.values())


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items() if v is not None and k != _DIRECTIVE}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
