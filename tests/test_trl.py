"""The TRL callback, in a real training of a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from toolguard import Case, Profile, RequestError

trl = pytest.importorskip("trl", reason="no TRL: pip install '.[trl]'")
datasets = pytest.importorskip("datasets")

from toolguard.evaluation.figures import drawn  # noqa: E402
from toolguard.evaluation.masses import ControlMass  # noqa: E402
from toolguard.integrations.trl import PROFILE, WatchCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # TRL's own
CASES = toolguard.held_out()[:40]


def brief(completions: list[Any], **given: Any) -> list[float]:
    """Did it open a call, and is it short? What breaks formats."""
    texts = [completion[0]["content"] for completion in completions]
    return [("<tool_call>" in text) - 0.01 * len(text) for text in texts]


def fresh() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(toolguard.checkpoint("healthy"), dtype=torch.float32)


def trainer(
    folder: Path, tokenizer: PreTrainedTokenizerBase, steps: int = 4, **options: Any
) -> Any:
    prompts = [{"prompt": [*case.messages]} for case in CASES if len(case.messages) == 1]
    config = trl.GRPOConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        temperature=3.0,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_steps=3,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=3,
        **options,
    )
    return trl.GRPOTrainer(
        model=fresh(),
        reward_funcs=brief,
        args=config,
        train_dataset=datasets.Dataset.from_list(prompts),
        processing_class=tokenizer,
    )


def answered(model: Any, tokenizer: PreTrainedTokenizerBase, cases: list[Case]) -> list[Any]:
    return [*toolguard.answer(model, tokenizer, cases, policy="observe", trace=True)]


def test_a_training_logs_what_its_model_does(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    trained = trainer(tmp_path, tokenizer)
    watch = WatchCallback(trained, CASES, freq=2, limit=8, seed=5)
    trained.add_callback(watch)
    trained.train()

    history = trained.state.log_history
    logged = {row["step"]: row for row in history if "toolguard/collapsed" in row}
    assert [*logged] == [*watch.history] == [0, 2, 4]
    asked = drawn(CASES, 8, 5)
    same = fresh()
    same.load_state_dict(trained.model.state_dict())
    turns = answered(same, tokenizer, asked)
    score = toolguard.score(asked, turns, 1.0)
    last = logged[4]
    for state, share in score.states.items():
        assert last[f"toolguard/{state}"] == pytest.approx(share, abs=1e-4)
    for name in ("schema_valid", "exact_match", "no_call_kept"):
        assert last[f"toolguard/{name}"] == getattr(score, name)
    mass = ControlMass()
    for turn in turns:
        mass.add(turn.report.steps)
    masses = [name for name in last if name.startswith("toolguard/mass/")]
    assert len(masses) >= 3
    for name in masses:
        _, _, position, token = name.split("/", 3)
        assert last[name] == pytest.approx(mass.mean(token, position), abs=1e-5)
    assert last != logged[0]

    profile = Profile.load(tmp_path / PROFILE)
    assert profile.turns == len(CASES)
    drift = toolguard.Drift(profile)
    statistics = []
    for turn in answered(fresh(), tokenizer, asked):
        drift.update(turn.report.steps)
        statistics.append(drift.statistic)
    assert logged[0]["toolguard/drift/statistic"] == pytest.approx(max(statistics))
    assert all(row["toolguard/drift/alarms"] >= 0 for row in logged.values())


def test_watching_changes_nothing_of_what_is_trained(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rewards, weights = [], []
    for name in ("alone", "watched"):
        trained = trainer(tmp_path / name, tokenizer, steps=3)
        if name == "watched":
            trained.add_callback(WatchCallback(trained, CASES, freq=1, limit=4))
        trained.train()
        history = trained.state.log_history
        rewards.append([(row["step"], row["reward"]) for row in history if "reward" in row])
        weights.append(trained.model.lm_head.weight)
    assert rewards[0] == rewards[1]
    assert [step for step, _ in rewards[0]] == [3]
    assert torch.equal(*weights)


def test_what_it_cannot_work_with_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    trained = trainer(tmp_path, tokenizer)
    with pytest.raises(RequestError, match="freq=0"):
        WatchCallback(trained, CASES, freq=0)
    trained.processing_class = None
    with pytest.raises(RequestError, match="no tokenizer"):
        WatchCallback(trained, CASES)
