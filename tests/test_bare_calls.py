"""A call without its opener is taken back and led into it; JSON that is no call is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedTokenizerBase, Qwen2ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

import toolguard

BODY = '{"name": "get_time", "arguments": {"zone": "Europe/Bern"}}'
CONVERSATION = [{"role": "user", "content": "What time is it?"}]


class Scripted(Qwen2ForCausalLM):
    """Continues whichever of its scripts begins with what was generated so far; one row only."""

    scripts: list[list[int]]
    prompt_length: int

    def forward(self, input_ids: Any, position_ids: Any, **rest: Any) -> CausalLMOutputWithPast:
        if not hasattr(self, "seen"):
            self.seen, self.prompt_length = {}, input_ids.shape[1]
        logits = torch.zeros((1, input_ids.shape[1], self.config.vocab_size))
        for column, position in enumerate(position_ids[0].tolist()):
            self.seen[position] = int(input_ids[0, column])
            said = [self.seen[p] for p in range(self.prompt_length, position + 1)]
            for script in self.scripts:
                if script[: len(said)] == said and len(said) < len(script):
                    logits[0, column, script[len(said)]] = 9.0
                    break
        kept = logits[:, -rest["logits_to_keep"] :]
        return CausalLMOutputWithPast(logits=kept, past_key_values=DynamicCache())


@pytest.fixture
def say(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> Any:
    def run(*texts: str, **options: Any) -> toolguard.Turn:
        model = Scripted(noise.config)
        model.scripts = [[*tokenizer(t)["input_ids"], tokenizer.eos_token_id] for t in texts]
        return toolguard.generate(model, tokenizer, CONVERSATION, tools, **options)

    return run


TAGGED = f"<tool_call>{BODY}</tool_call>"


def test_a_bare_call_is_led_into_the_opener(say: Any) -> None:
    assert [f.kind for f in say(BODY, policy="observe").faults] == ["untagged_call"]
    turn = say(BODY, TAGGED)
    assert turn.raw == TAGGED
    assert turn.faults == ()
    led = [item for item in turn.report.interventions if item.action == "lead"]
    assert len(led) == 1
    assert BODY.startswith(led[0].token)
    # The body was fed again along with the opener, and confirmed without a pass of its own.
    assert turn.report.forward_passes < turn.report.tokens + 5


def test_a_body_that_goes_on_differently_after_the_opener_is_not_kept(say: Any) -> None:
    spaced = TAGGED.replace("<tool_call>", "<tool_call>\n").replace("Bern", "Basel")
    assert say(BODY, spaced).raw == spaced


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": 42}',
        '{"name": "someone else", "arguments": {}}',
        '{"name": "get_tide", "arguments": {"zone": "x"}}',
        "get_time is a tool, get_weather another.",
        'Use {"name": "get_time"} for it.',
    ],
)
def test_json_and_prose_that_are_no_call_stay_as_they_are(say: Any, text: str) -> None:
    turn = say(text)
    assert turn.raw == text
    assert turn.report.interventions == ()


def test_where_no_call_is_wanted_none_is_made(say: Any) -> None:
    assert say(BODY, TAGGED, tool_choice="none").calls == ()
