"""What the files of benchmarks have in common: a question a line, its answer in a file beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CaseError
from .case import Case, Cases
from .lines import Line, lines


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark lays its files out.

    Attributes:
        name: its name.
        shape: what a line has, in words.
        is_question: whether a line has that.
        kind: the category of a question, from its id.
        unread: why no cases are made of a category; empty if they are.
        answered: whether a category has answers.
        nothing: the answer of one that has none.
        fault: what an answer is not, in words; empty if it is well-formed.
        case: the case of a line, its category and its answer, or why there is none.
    """

    name: str
    shape: str
    is_question: Callable[[Mapping[str, Any]], bool]
    kind: Callable[[str], str]
    unread: Callable[[str], str]
    answered: Callable[[str], bool]
    nothing: Any
    fault: Callable[[Any], str]
    case: Callable[[Line, str, Any], Case | str]

    def read(self, path: Path) -> Cases:
        """The cases of one file.

        Cases whose expected call violates its own tool's schema, or whose tools have no JSON
        schema, are left out and counted: no model that keeps to the tools can be right there.

        Raises:
            CaseError: there are none to read, or there is no answer to one.
        """
        answers: dict[str, Any] | None = None
        cases = Cases()
        for line in lines(path):
            if not self.is_question(line.row):
                raise CaseError(f"{line.place}: {self.name} has {self.shape} a line")
            id = line.row["id"]
            kind = self.kind(id)
            if reason := self.unread(kind):
                raise CaseError(f"{line.place} ({kind}) is not read: {reason}")
            truth = self.nothing
            if self.answered(kind):
                answers = self._answers(path) if answers is None else answers
                if id not in answers:
                    raise CaseError(f"{line.place}: possible_answer/{path.name} has no {id!r}")
                truth = answers[id]
                if fault := self.fault(truth):
                    raise CaseError(
                        f"possible_answer/{path.name}: the 'ground_truth' of {id!r} is no {fault}"
                    )
            made = self.case(line, kind, truth)
            if isinstance(made, Case):
                cases.append(made)
            else:
                cases.left_out[made] += 1
        return cases

    def _answers(self, path: Path) -> dict[str, Any]:
        beside = path.parent / "possible_answer" / path.name
        if not beside.is_file():
            raise CaseError(f"{path}: there are no answers: {self.name} keeps them in {beside}")
        return {line.row.get("id", ""): line.row.get("ground_truth") for line in lines(beside)}
