"""What commands that ask a model cases have in common: the options, the model, the cases."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.console import Console

import toolguard

from ..checkpoints import checkpoint_names, held_out
from ..errors import CaseError, RequestError
from ..evaluation.builtin import builtin_cases
from ..evaluation.case import fingerprint_of
from ..evaluation.cases import Case, read_cases
from ..evaluation.journal import Journal
from ..evaluation.load import Source
from ..policy.profile import Profile
from .progress import progress_bars

if TYPE_CHECKING:
    from ..evaluation.subject import Subject

Model: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="A model's folder or hub name, a LoRA adapter's folder, a GGUF file, a bundled "
        "checkpoint, or the base URL of an OpenAI-compatible server (http://host:8000/v1)."
    ),
]
Cases: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A file or folder of cases (toolguard's, BFCL's, ACEBench's); unless given, the "
        "built-in ones, for a bundled checkpoint those of its own world."
    ),
]
Limit: TypeAlias = Annotated[int, typer.Option(min=1, help="At most so many cases.")]
Seed: TypeAlias = Annotated[int, typer.Option(help="Picks the cases, and seeds the sampling.")]
Temperature: TypeAlias = Annotated[
    float, typer.Option(min=0, help="As in the deployment; 0 is greedy.")
]
MaxNewTokens: TypeAlias = Annotated[int, typer.Option(min=1, help="The longest turn.")]
Batch: TypeAlias = Annotated[int, typer.Option(min=1, help="Turns decoded side by side.")]
Base: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What a LoRA adapter was trained on; its configuration tells unless given."),
]
Format: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="What the model writes; its chat template tells unless given, a URL does not.",
    ),
]
ApiKey: TypeAlias = Annotated[
    str, typer.Option(envvar="OPENAI_API_KEY", help="Of the server, where MODEL is a URL.")
]


@dataclass(frozen=True)
class Questions:
    """Cases that are put to a model, and how.

    Attributes:
        model: as it was named.
        cases: those that were picked.
        settings: what the answers depend on, as JSON values.
        batch: how many are asked at a time.
        wire_format: what the model writes; None: its chat template tells.
        api_key: of its server, if it is behind one.
        base: what it was trained on, if it is a LoRA adapter whose configuration does not tell.
    """

    model: str
    cases: list[Case]
    settings: dict[str, Any]
    batch: int
    wire_format: str | None
    api_key: str
    base: str | None

    def subject(self, name: str, reference: Subject | None = None) -> Subject:
        """A model, ready to be asked.

        Args:
            name: the model's.
            reference: for `recover`, a model that was loaded before.
        """
        if _is_url(name):
            from ..evaluation.endpoint import Endpoint

            if self.wire_format is None:
                raise RequestError(
                    f"which format the model at {name} writes is not known: name it by --format "
                    "(`toolguard formats` lists them)"
                )
            return Endpoint(
                name,
                self.wire_format,
                api_key=self.api_key,
                batch=self.batch,
                max_new_tokens=self.settings["max_new_tokens"],
                temperature=self.settings["temperature"],
                seed=self.settings["seed"],
            )
        from ..evaluation.local import LocalModel

        return LocalModel.load(
            name,
            base=self.base,
            wire_format=self.wire_format,
            reference=reference.model if isinstance(reference, LocalModel) else None,
            batch=self.batch,
            max_new_tokens=self.settings["max_new_tokens"],
            temperature=self.settings["temperature"],
            seed=self.settings["seed"],
        )

    def profile(self, path: Path, subject: Subject) -> Profile:
        """A profile, checked against the model where that is at hand."""
        from ..evaluation.local import LocalModel

        tokenizer = subject.tokenizer if isinstance(subject, LocalModel) else None
        return Profile.load(path, subject.wire_format, tokenizer)

    def fingerprint(self, name: str | None) -> str | None:
        """Changes when the weights in a model's folder do."""
        if name is None or _is_url(name):
            return name
        files = Source.of(name, self.base).files()
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return f"{name} {hashlib.sha256(repr(stats).encode()).hexdigest()[:12]}"

    def journal(self, path: Path, **settings: Any) -> Journal:
        """Where the answers are kept. Its folder is made, and shown to be writable, before any
        work."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return Journal(
            path,
            {
                "toolguard": toolguard.__version__,
                "model": self.fingerprint(self.model),
                **self.settings,
                "asked": fingerprint_of(self.cases),
                **settings,
            },
        )

    def about(self, **more: Any) -> dict[str, Any]:
        """What a report says of all this."""
        return {
            "toolguard": toolguard.__version__,
            "model": self.model,
            **more,
            "settings": self.settings,
        }


def questions(
    model: str,
    cases: Path | None,
    limit: int,
    seed: int,
    temperature: float,
    max_new_tokens: int,
    batch: int,
    wire_format: str | None,
    api_key: str,
    base: str | None,
    errors: Console,
) -> Questions:
    """The cases that a command is to ask, picked by the seed, in their order.

    Raises:
        CaseError: there are none.
    """
    found: list[Case]
    if cases is not None:
        read = read_cases(cases)
        for reason, count in read.left_out.items():
            errors.print(f"left out: {count} ({reason})", markup=False, soft_wrap=True)
        found, source = list(read), str(cases)
    elif model in checkpoint_names():
        found, source = held_out(), "bundled"
    else:
        found, source = list(builtin_cases()), "built-in"
    if not found:
        raise CaseError(f"{cases} has no cases")
    picked = set(random.Random(seed).sample(range(len(found)), min(limit, len(found))))
    return Questions(
        model,
        [case for place, case in enumerate(found) if place in picked],
        {
            "cases": source,
            "limit": limit,
            "seed": seed,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
        },
        batch,
        wire_format,
        api_key,
        base,
    )


@contextmanager
def run_watched(errors: Console, total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over a whole run, that names the part at work."""
    with progress_bars(errors) as bars:
        whole = bars.add_task("", total=total)

        def watch(part: str, done: int) -> None:
            bars.update(whole, description=part, advance=done)

        yield watch


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))
