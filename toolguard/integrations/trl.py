"""TRL: the figures of `toolguard watch`, logged while a model is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.models import unwrap_model_for_generation

from ..checkpoints import held_out
from ..errors import ProfileError, RequestError
from ..evaluation.case import Case
from ..evaluation.figures import Figures, drawn, figures, record_profile
from ..parsing.recognise import recognise
from ..parsing.turn import STATES
from ..policy.drift import Drift
from ..policy.profile import Profile
from ..report.report import Position

PROFILE = "toolguard-watch.profile.json"
_log = logging.getLogger(__name__)


class WatchCallback(TrainerCallback):
    """Has the policy answer cases every so many steps, and logs what `toolguard watch` would say.

    The turns are unguarded: nothing of what is trained changes. What is logged goes through the
    trainer, and so to wherever it reports (trackio, wandb, tensorboard), under `toolguard/`: the
    shares of the four states, `schema_valid`, `exact_match`, `no_call_kept`, the share of turns
    with a fault (`fault/KIND`), the mean control mass (`mass/POSITION/TOKEN`), `drift/statistic`,
    and how many alarms there were (`drift/alarms`). An alarm is a warning in Python's log, too.

    Before the first step the model is asked as well, and its profile is recorded on all cases,
    unless one is given; it is kept in the trainer's output folder, from where a resumed training
    takes it. The detector itself begins anew there.

        trainer = GRPOTrainer(...)
        trainer.add_callback(WatchCallback(trainer, cases, freq=50))

    Models in several processes answer on the first one; FSDP was not tried.

    Args:
        trainer: the trainer, of TRL or transformers.
        cases: what may be asked; the bundled cases unless given.
        freq: how many steps lie between two times; the last step counts in any case.
        limit: how many of the cases are asked each time.
        seed: draws these, and seeds the sampling.
        profile: of the healthy model, or its file.
        run_length: of the detector (`toolguard.Drift`).
        options: for `toolguard.answer`: `batch`, `max_new_tokens`, `temperature`.

    Attributes:
        history: the figures by step.

    Raises:
        RequestError: a number is below 1, or the trainer has no tokenizer.
    """

    def __init__(
        self,
        trainer: Trainer,
        cases: Sequence[Case] | None = None,
        *,
        freq: int = 50,
        limit: int = 64,
        seed: int = 0,
        profile: Profile | Path | None = None,
        run_length: float = 10_000,
        **options: Any,
    ) -> None:
        if freq < 1 or limit < 1:
            raise RequestError(f"freq={freq}, limit={limit}: at least 1")
        tokenizer: Any = trainer.processing_class
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise RequestError("the trainer has no tokenizer: give it a processing_class")
        self.trainer, self.freq, self.run_length = trainer, freq, run_length
        self.history: dict[int, Figures] = {}
        self._tokenizer = tokenizer
        self._cases = held_out() if cases is None else cases
        self._asked = drawn(self._cases, limit, seed)
        self._profile = profile
        self._drift: Drift | None = None
        self._ready = False
        self._options = {**options, "seed": seed}
        self._masses: dict[tuple[Position, str], None] = {}
        self._faults: dict[str, None] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Records the profile, and logs the figures from before the training."""
        self._watch(args, state, control)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Logs the figures where it is time."""
        if state.global_step % self.freq == 0 or state.global_step == state.max_steps:
            self._watch(args, state, control)

    def _watch(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step in self.history:
            return
        trainer, accelerator = self.trainer, self.trainer.accelerator
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            accelerator,
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as model:
            training = model.training
            model.eval()
            try:
                if accelerator.is_main_process:
                    if not self._ready:
                        self._drift = self._detector(model, Path(args.output_dir or "."), state)
                        self._ready = True
                    made = figures(
                        model, self._tokenizer, self._asked, self._drift, **self._options
                    )
                    self.history[state.global_step] = made
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    self._report(made, state, control)
            finally:
                model.train(training)

    def _report(self, made: Figures, state: TrainerState, control: TrainerControl) -> None:
        for alarm in made.alarms:
            _log.warning("step %d: %s", state.global_step, alarm)
        # Logging says that this step was logged: it has to be said no more than was asked for. The
        # model is in evaluation mode, so that TRL keeps what it has gathered of the training.
        wanted = control.should_log
        self.trainer.log(self._named(made))
        control.should_log = wanted

    def _named(self, made: Figures) -> dict[str, float]:
        """The figures by the names that they are logged by."""
        rates: dict[str, float | None] = {state: made.share(state) for state in STATES}
        for name in ("schema_valid", "exact_match", "no_call_kept"):
            rates[name] = getattr(made, name)
        # what was there once is logged from then on, so that curves have no gaps
        self._faults.update(dict.fromkeys(made.faults))
        for kind in self._faults:
            rates[f"fault/{kind}"] = made.faults.get(kind, 0) / made.turns
        self._masses.update(dict.fromkeys(made.masses()))
        for position, token in self._masses:
            if made.mass.count(position):
                rates[f"mass/{position}/{token}"] = made.mass.mean(token, position)
        if made.statistic is not None:
            rates |= {"drift/statistic": made.statistic, "drift/alarms": len(made.alarms)}
        return {f"toolguard/{name}": rate for name, rate in rates.items() if rate is not None}

    def _detector(self, model: Any, folder: Path, state: TrainerState) -> Drift | None:
        wire_format = recognise(self._tokenizer)
        kept = folder / PROFILE
        if isinstance(self._profile, Path):
            self._profile = Profile.load(self._profile, wire_format, self._tokenizer)
        elif self._profile is None and state.global_step and kept.exists():
            self._profile = Profile.load(kept, wire_format, self._tokenizer)
        elif self._profile is None:
            self._profile = record_profile(model, self._tokenizer, self._cases, **self._options)
            folder.mkdir(parents=True, exist_ok=True)
            self._profile.save(kept)
        try:
            return Drift(self._profile, run_length=self.run_length)
        except ProfileError as error:
            _log.warning("no drift detector: %s", error)
            return None
