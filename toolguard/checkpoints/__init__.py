"""The checkpoints that ship with toolguard: one healthy model, and what training made of it.

Reinforcement learning broke the format of all but `arguments_lost`, which was taught wrong values
in the right format, as a model whose skill is gone and whose format is not.

They are small (about 1M parameters) and were made by `benchmarks/lab`; each has a model card with
its recipe, its seed and its measured rates. `held_out.jsonl` holds prompts none was trained on.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from ..evaluation.cases import Case, read_cases

_HERE = Path(__file__).parent


def checkpoint_names() -> tuple[str, ...]:
    """The bundled checkpoints, `healthy` first."""
    names = sorted(path.parent.name for path in _HERE.glob("*/model.safetensors"))
    return tuple(sorted(names, key=lambda name: name != "healthy"))


def checkpoint(name: str) -> Path:
    """The directory of a bundled checkpoint, for `from_pretrained`.

    Raises:
        RequestError: there is no such checkpoint.
    """
    if name not in checkpoint_names():
        known = ", ".join(checkpoint_names())
        raise RequestError(f"no bundled checkpoint {name!r}: there are {known}")
    return _HERE / name


def held_out() -> list[Case]:
    """The bundled evaluation cases, of prompts that no checkpoint was trained on."""
    return read_cases(_HERE / "held_out.jsonl")
