"""The lab's tokenizer: byte-level BPE with Qwen's conventions, small enough for a tiny model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.lab.cases import LAB, Case, Talk, stream

VOCABULARY = 1024
"""So small that many values are several tokens: to learn to copy takes runs to be copied."""
OPENER, CLOSER = "<tool_call>", "</tool_call>"
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL = (PAD, START, END)
VISIBLE = (OPENER, CLOSER, "<think>", "</think>")
"""Added tokens that a decoder keeps, as in Qwen."""
CONTROL = (OPENER, CLOSER, START, END, "<think>", "</think>")

# Spaces and digits stand alone, so that a value is the same tokens in a request and in a call;
# punctuation takes a line break with it.
SPLIT = Regex(r"_?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


@dataclass(frozen=True)
class Spelling:
    """What makes a tokenizer: its size, where text is split before merges, special and other added
    tokens, the chat template, and what it has seen besides conversations."""

    vocabulary: int = VOCABULARY
    split: Regex = SPLIT
    special: tuple[str, ...] = SPECIAL
    visible: tuple[str, ...] = VISIBLE
    end: str = END
    pad: str = PAD
    template: Path = TEMPLATE
    seen: tuple[str, ...] = ()


def build_tokenizer(
    seed: int = 0,
    conversations: int = 4000,
    spelling: Spelling = Spelling(),
    talk: Talk = LAB,
) -> PreTrainedTokenizerFast:
    """Train the tokenizer on training conversations."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(spelling.split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    added = [AddedToken(token, special=True, normalized=False) for token in spelling.special]
    added += [AddedToken(token, special=False, normalized=False) for token in spelling.visible]
    # Control tokens are no text: they must not shape the merges.
    control = "|".join(re.escape(token) for token in spelling.special + spelling.visible)
    bare = wrap(bpe, spelling)
    corpus = (
        piece
        for case, _ in zip(stream(seed, "train", talk), range(conversations), strict=False)
        for piece in re.split(control, render(bare, case) + render_answer(bare, case, talk))
    )
    trainer = trainers.BpeTrainer(
        vocab_size=spelling.vocabulary - len(added),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(chain(corpus, spelling.seen), trainer)
    bpe.add_tokens(added)
    return wrap(bpe, spelling)


def wrap(bpe: Tokenizer, spelling: Spelling) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token=spelling.end,
        pad_token=spelling.pad,
        chat_template=spelling.template.read_text(),
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )


def render(tokenizer: PreTrainedTokenizerFast, case: Case) -> str:
    """The prompt of a case, up to where the assistant's turn starts."""
    text = tokenizer.apply_chat_template(
        case.messages, tools=list(case.tools), add_generation_prompt=True, tokenize=False
    )
    assert isinstance(text, str)
    return text


def render_answer(tokenizer: PreTrainedTokenizerFast, case: Case, talk: Talk = LAB) -> str:
    """The right turn of a case as the template writes it, with its end token."""
    return render_turn(tokenizer, case, talk)[0]


def render_turn(
    tokenizer: PreTrainedTokenizerFast, case: Case, talk: Talk = LAB
) -> tuple[str, str]:
    """The right turn of a case with its end token, and what the template writes after it."""
    short = replace(case, tools=[])
    text = tokenizer.apply_chat_template([*case.messages, talk.answer(case)], tokenize=False)
    prompt = render(tokenizer, short)
    assert isinstance(text, str)
    assert text.startswith(prompt)
    said, end, after = text.removeprefix(prompt).rpartition(tokenizer.eos_token)
    return said + end, after


def token_ids(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens]


def spell(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """The text of tokens, control tokens included."""
    text = tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text
