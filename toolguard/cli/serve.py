"""`toolguard serve`: vLLM's server, guarded."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from ..checkpoints import checkpoint, checkpoint_names
from ..errors import RequestError, ToolguardError
from ..evaluation.load import ADAPTER, Source, adapter_config
from ..formats.nodes import Control
from ..formats.wire_format import WireFormat
from ..integrations.vllm.environment import MODE, PROFILE
from ..parsing.recognise import recognise
from ..policy.profile import Profile
from .questions import Base

PLUGINS = "VLLM_PLUGINS"
_BACKEND = "--structured-outputs-config.backend"
_GROUPS = (
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)
"""The plugins that vLLM loads unless told which to; it adds no routes without being told."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `--max-lora-rank`."""
_REFUSED = {
    "--tool-call-parser": "toolguard has its own: choose the wire format with --format",
    "--model": "the model comes first: toolguard serve MODEL",
    "--api-server-count": "only `vllm serve` starts several; --dry-run says what to give it",
    "--headless": "only `vllm serve` knows it; --dry-run says what to give it",
}


def serve(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="As for vLLM, the name of a bundled checkpoint, or the folder of a LoRA adapter."
        ),
    ],
    format: Annotated[
        str | None, typer.Option(help="The wire format's name; the tokenizer tells unless given.")
    ] = None,
    mode: Annotated[
        Literal["processor", "engine"] | None,
        typer.Option(
            help="Who holds turns to their grammar: toolguard's logits processor, or vLLM's own "
            "structured outputs; whichever can, unless given."
        ),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A profile (toolguard profile) to look for drift against.")
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Take back what goes wrong, and sample it again.")
    ] = False,
    base: Base = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command and its environment, no more.")
    ] = False,
) -> None:
    """Start vLLM's server with the guard. All other options are vLLM's own."""
    flags = list(context.args)
    try:
        if not dry_run and find_spec("vllm") is None:
            raise RequestError("vLLM is not installed: pip install '.[vllm]' in toolguard's clone")
        _check(model, flags, mode)
        bundled = model in checkpoint_names()
        added = _bundled(model, flags) if bundled else []
        folder = str(checkpoint(model)) if bundled else model
        if (Path(model) / ADAPTER).is_file():
            source = Source.of(model, base)
            assert source.base is not None
            folder, flags = source.base.path, [*_adapter(source, flags), *flags]
        if not (format and "--reasoning-parser" in _names(flags)) or profile:
            added += _recognised(folder, format, flags, profile)
    except (ToolguardError, OSError, ValueError) as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    if mode == "engine" and _BACKEND not in _names(flags):
        added += [_BACKEND, "guidance"]
    parser = f"toolguard:{format}" if format else "toolguard"
    command = [
        sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", folder,
        "--enable-auto-tool-choice", "--tool-call-parser", parser, *added, *flags,
    ]  # fmt: skip
    environment = {PLUGINS: plugins(os.environ, resample)}
    if mode:
        environment[MODE] = mode
    if profile:
        environment[PROFILE] = str(profile.resolve())
    if dry_run:
        settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        print(*settings, shlex.join(command))
        return
    _become(command, environment)


def plugins(environment: Mapping[str, str], resample: bool) -> str:
    """What VLLM_PLUGINS has to say for toolguard's routes to be added and no other plugin lost.

    Once it is set, vLLM loads only the plugins that it names.
    """
    if PLUGINS in environment:
        names = [name for name in environment[PLUGINS].split(",") if name]
    else:
        names = [entry.name for group in _GROUPS for entry in entry_points(group=group)]
    ours = ["toolguard", "toolguard_resample"] if resample else ["toolguard"]
    return ",".join(dict.fromkeys([*names, *ours]))


def _check(model: str, flags: Sequence[str], mode: str | None) -> None:
    """Refuses what cannot go together.

    Raises:
        RequestError: the message says what to change.
    """
    if model.startswith("-"):
        raise RequestError(f"{model}: the model comes first: toolguard serve MODEL {model} ...")
    names = _names(flags)
    for name, why in _REFUSED.items():
        if name in names:
            raise RequestError(f"{name}: {why}")
    if mode == "engine":
        if "--structured-outputs-config" in names:
            raise RequestError(
                f"--structured-outputs-config: --mode engine sets {_BACKEND}, so give the rest of "
                "it one by one, too: --structured-outputs-config.NAME VALUE"
            )
        if _value(flags, _BACKEND) not in (None, "guidance"):
            raise RequestError(
                f"{_BACKEND} {_value(flags, _BACKEND)}: --mode engine needs guidance, the only one "
                "that takes the grammars of whole turns"
            )


def _bundled(model: str, flags: Sequence[str]) -> list[str]:
    """What a bundled checkpoint is served with: its name, and single precision, which it was
    trained in, unless the user says otherwise."""
    wanted = {"--served-model-name": model, "--dtype": "float32"}
    names = _names(flags)
    return [part for name, value in wanted.items() if name not in names for part in (name, value)]


def _adapter(source: Source, flags: Sequence[str]) -> list[str]:
    """What the base of a LoRA adapter is served with, for the adapter to be there by its name."""
    config = adapter_config(Path(source.path))
    if "r" not in config:
        raise RequestError(f"{source.path} has no rank `r`: vLLM serves LoRA adapters alone")
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    sizes = [size for size in _RANKS if size >= rank]
    if not sizes:
        raise RequestError(f"{source.path}: rank {rank}; vLLM serves up to {_RANKS[-1]}")
    own = source.has_tokenizer and "--tokenizer" not in _names(flags)
    tokenizer = ["--tokenizer", source.path] if own else []
    name = Path(source.path).resolve().name
    return [
        "--enable-lora", "--lora-modules", f"{name}={source.path}",
        "--max-lora-rank", str(sizes[0]), *tokenizer,
    ]  # fmt: skip


def _recognised(
    model: str, format: str | None, flags: Sequence[str], profile: Path | None
) -> list[str]:
    """Flags that follow from the tokenizer, once it, the format and the profile go together."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        _value(flags, "--tokenizer") or model,
        revision=_value(flags, "--tokenizer-revision") or _value(flags, "--revision"),
        trust_remote_code="--trust-remote-code" in _names(flags),
    )
    wire_format = WireFormat.load(format) if format else recognise(tokenizer)
    if profile is not None:
        Profile.load(profile, wire_format, tokenizer)
    frame = wire_format.reasoning
    tags = {part.text for part in frame.opening + frame.closing if isinstance(part, Control)}
    reasons = bool(tags) and tags <= tokenizer.get_added_vocab().keys()
    if reasons and "--reasoning-parser" not in _names(flags):
        return ["--reasoning-parser", f"toolguard:{format}" if format else "toolguard"]
    return []


def _names(flags: Iterable[str]) -> set[str]:
    """The names of the flags, spelled with hyphens; vLLM takes underscores, too."""
    return {_name(flag) for flag in flags if flag.startswith("--")}


def _name(flag: str) -> str:
    return flag.partition("=")[0].replace("_", "-")


def _value(flags: Sequence[str], name: str) -> str | None:
    """The value of a flag, written as `--name value` or `--name=value`."""
    for flag, following in pairwise([*flags, None]):
        if flag is not None and _name(flag) == name:
            return flag.partition("=")[2] or following
    return None


def _become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Replaces this process, so that signals reach the server."""
    os.execve(command[0], command, {**os.environ, **environment})
