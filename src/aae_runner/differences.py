"""What differs between configs."""

import json
from collections.abc import Collection, Sequence
from typing import Any

_ABSENT = object()


def differences(configs: Sequence[Any], left_out: Collection[str], key: str = "") -> dict[str, list[str]]:
    """The keys whose values are not the same in all configs, with the value in each.

    Components of different classes differ as a whole.

    Args:
        configs: of the experiments, or what they have at a key.
        left_out: keys that are not looked at.
        key: where they are.
    """
    if key in left_out or all(one == configs[0] for one in configs):
        return {}
    classes = {one.get("_target_") if isinstance(one, dict) else _ABSENT for one in configs}
    if _ABSENT in classes or len(classes) > 1:
        return {key: [_short(one) for one in configs]}
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for one in configs for name in one):
        found |= differences(
            [one.get(name, _ABSENT) for one in configs], left_out, f"{key}.{name}".lstrip(".")
        )
    return found


def _short(node: Any) -> str:
    """A value in a few characters: MLP(width=500, depth=2)."""
    if node is _ABSENT:
        return "-"
    if not isinstance(node, dict):
        return node if isinstance(node, str) else json.dumps(node)
    content = ", ".join(f"{name}={_short(value)}" for name, value in node.items() if name != "_target_")
    return f"{str(node.get('_target_', '')).rpartition('.')[2]}({content})"
