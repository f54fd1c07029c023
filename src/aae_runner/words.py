"""Things in words: what an annotation lets through, and how many there are."""

import dataclasses
import types
import typing
from typing import Any, Literal

from annotated_types import Ge, Gt, Len, Lt


def is_union(annotation: Any) -> bool:
    """Whether a value may be of one kind or another."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def allowed(annotation: Any) -> str:  # noqa: PLR0911
    """What an annotation lets through."""
    if dataclasses.is_dataclass(annotation):
        return f"its keys ({', '.join(field.name for field in dataclasses.fields(annotation))})"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        kind, *limits = arguments
        if kind == dict[str, Any]:
            return "a class (`_target_`) and its keys"
        return f"{allowed(kind)} {', '.join(filter(None, map(_limit, limits)))}".strip()
    if is_union(annotation):
        return " or ".join(map(allowed, arguments))
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin is list:
        return f"list of {allowed(arguments[0])}"
    if origin is tuple:
        return f"[{'; '.join(map(allowed, arguments))}]"
    if origin is dict:
        return f"{{{': '.join(map(allowed, arguments))}}}"
    names = {bool: "`true`, `false`", int: "integer", float: "number", str: "text", type(None): "`null`"}
    return names.get(annotation, "anything")


def _limit(limit: Any) -> str:
    if isinstance(limit, Len):
        return f"({limit.min_length} of them)"
    signs = {Ge: "≥ {0.ge}", Gt: "> {0.gt}", Lt: "< {0.lt}"}
    return next((text.format(limit) for kind, text in signs.items() if isinstance(limit, kind)), "")


def counted(n: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
