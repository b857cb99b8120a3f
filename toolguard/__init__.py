"""toolguard: an inference-time guard and constrained decoder for LLM tool calls.

Everything public is here. What needs torch or transformers is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checkpoints import checkpoint, checkpoint_names, held_out
from .decoding.guard import Guard
from .decoding.state import GuardState
from .diagnosis.advice import Advice
from .diagnosis.diagnosis import Diagnosis, diagnose
from .diagnosis.sweep import sweep
from .diagnosis.verdict import Verdict
from .errors import (
    CaseError,
    FormatError,
    ProfileError,
    RequestError,
    RowError,
    RunError,
    StateError,
    TokenizerError,
    ToolguardError,
    ToolsetError,
)
from .evaluation.builtin import builtin_cases
from .evaluation.cases import Acceptable, Case, Cases, read_cases
from .evaluation.journal import Journal
from .evaluation.score import Score, score
from .formats.render import render
from .formats.wire_format import WireFormat, format_names
from .grammar.arguments import Relaxation
from .parsing.events import (
    ArgumentsDelta,
    CallEnd,
    CallName,
    CallStart,
    Event,
    FaultFound,
    ReasoningDelta,
    TextDelta,
    TurnEnd,
)
from .parsing.parser import TurnParser
from .parsing.read import read_turn
from .parsing.recognise import recognise
from .parsing.turn import Call, Fault, Turn
from .policy.drift import Alarm, Drift, Spike, spikes
from .policy.profile import Profile
from .repair.classify import classify
from .repair.edits import Edit, Repair
from .repair.repair import repair
from .report.report import Intervention, Report, Step
from .rows.classify import Classes, Group, classify_files
from .rows.layout import Layout
from .rows.repair import repair_files
from .rows.tally import Tally
from .tools.schemas import Correction
from .tools.toolset import Tool, Toolset
from .versions import check_versions

check_versions()

if TYPE_CHECKING:
    from .evaluation.answer import answer
    from .evaluation.endpoint import Endpoint
    from .evaluation.local import LocalModel
    from .integrations.transformers.generate import generate
    from .integrations.transformers.processor import GuardLogitsProcessor
    from .integrations.vllm import offline as vllm
    from .policy.calibrate import Calibration
    from .policy.enforce import enforce

_LAZY = {
    "Calibration": "toolguard.policy.calibrate",
    "Endpoint": "toolguard.evaluation.endpoint",
    "GuardLogitsProcessor": "toolguard.integrations.transformers.processor",
    "LocalModel": "toolguard.evaluation.local",
    "answer": "toolguard.evaluation.answer",
    "enforce": "toolguard.policy.enforce",
    "generate": "toolguard.integrations.transformers.generate",
}

_MODULES = {"vllm": "toolguard.integrations.vllm.offline"}

__version__ = "0.1.0"

__all__ = [
    "Acceptable",
    "Advice",
    "Alarm",
    "ArgumentsDelta",
    "Calibration",
    "Call",
    "CallEnd",
    "CallName",
    "CallStart",
    "Case",
    "CaseError",
    "Cases",
    "Classes",
    "Correction",
    "Diagnosis",
    "Drift",
    "Edit",
    "Endpoint",
    "Event",
    "Fault",
    "FaultFound",
    "FormatError",
    "Group",
    "Guard",
    "GuardLogitsProcessor",
    "GuardState",
    "Intervention",
    "Journal",
    "Layout",
    "LocalModel",
    "Profile",
    "ProfileError",
    "ReasoningDelta",
    "Relaxation",
    "Repair",
    "Report",
    "RequestError",
    "RowError",
    "RunError",
    "Score",
    "Spike",
    "StateError",
    "Step",
    "Tally",
    "TextDelta",
    "TokenizerError",
    "Tool",
    "ToolguardError",
    "Toolset",
    "ToolsetError",
    "Turn",
    "TurnEnd",
    "TurnParser",
    "Verdict",
    "WireFormat",
    "answer",
    "builtin_cases",
    "checkpoint",
    "checkpoint_names",
    "classify",
    "classify_files",
    "diagnose",
    "enforce",
    "format_names",
    "generate",
    "held_out",
    "read_cases",
    "read_turn",
    "recognise",
    "render",
    "repair",
    "repair_files",
    "score",
    "spikes",
    "sweep",
    "vllm",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'toolguard' has no attribute {name!r}")
