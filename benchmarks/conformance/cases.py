"""The suite's fixtures, and what toolguard is told of each: its format, its tools, its opening."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import Family, Fixture, load_families, load_fixtures
from canitoolcall.results import Observation, Status

from toolguard import Toolset, WireFormat
from toolguard.grammar.request import Reasoning, reasoning_after
from toolguard.parsing.opening import Opened

FORMATS = {
    "deepseek-ai/DeepSeek-V3-": "deepseek_v3",
    "deepseek-ai/DeepSeek-V3.1": "deepseek_v31",
    "deepseek-ai/DeepSeek-V4.1": "deepseek_v41",
    "deepseek-ai/DeepSeek-V": "dsml",
    "google/gemma-4": "gemma4",
    "zai-org/GLM": "glm_xml",
    "openai/gpt-oss": "harmony",
    "moonshotai/Kimi-K2": "kimi_k2",
    "moonshotai/Kimi-K3": "kimi_k3",
    "meta-llama/Llama-3": "llama3_json",
    "meta-llama/Llama-4": "pythonic",
    "mistralai/Mistral-7B": "mistral_json",
    "mistralai/": "mistral_args",
    "Qwen/Qwen3-Coder": "qwen3_xml",
    "Qwen/Qwen3.": "qwen3_xml",
    "Qwen/Qwen3-": "hermes",
}
"""The format of a model, by how its name begins; the first that fits."""
OPTIONS = {"Qwen/Qwen3-Coder": "qwen3_xml+bare", "meta-llama/Llama-3": "llama3_json+text"}
"""The same with what the format takes only where one asks for it."""


@dataclass(frozen=True, eq=False)
class Case:
    """A fixture as toolguard is given it.

    Attributes:
        fixture: the suite's record.
        family: what the suite knows of its family.
        optional: its format is taken with its options, where it has some.
    """

    fixture: Fixture
    family: Family
    optional: bool = False

    @property
    def id(self) -> str:
        return self.fixture.id

    @property
    def file(self) -> str:
        """Family and file, as the suite names them."""
        assert self.fixture.source is not None
        return f"{self.fixture.family}/{self.fixture.source.stem}"

    @property
    def valid(self) -> bool:
        """Whether a model's turn went to its end, and the suite says what it says."""
        return self.fixture.expected is not None and not self.fixture.truncated

    @cached_property
    def wire_format(self) -> WireFormat:
        formats = {**FORMATS, **OPTIONS} if self.optional else FORMATS
        model = self.fixture.reference_model
        return WireFormat.load(next(name for way, name in formats.items() if model.startswith(way)))

    @cached_property
    def toolset(self) -> Toolset:
        return Toolset.of(self.fixture.tools)

    @property
    def prompt(self) -> str:
        """The end of the prompt that the turn follows."""
        reference = self.family.reference_for(self.fixture.reference_model)
        default = reference.default_generation_prompt if reference else None
        return self.fixture.generation_prompt or default or ""

    @property
    def opening(self) -> Reasoning:
        """What the prompt has opened, as a server finds it: from the prompt and the format."""
        return reasoning_after(self.prompt, self.wire_format)

    @property
    def opened(self) -> Opened:
        """The same, as readers are told it."""
        return "reply" if self.opening == "reply" else self.opening == "open"

    def verdict(self, seen: Observation) -> tuple[Status, str]:
        """The suite's own verdict on what was made of it, and what is wrong."""
        rows = run_checks(self.fixture, self.family, seen)
        status = case_status(rows, seen.synthetic)
        wrong = next((row for row in rows if row.status is status), None)
        return status, "" if status is Status.PASS or wrong is None else wrong.detail or ""


@cache
def cases() -> tuple[Case, ...]:
    """All of them, in the suite's order."""
    families = load_families()
    return tuple(Case(fixture, families[fixture.family]) for fixture in load_fixtures())
