"""The lab's tokenizer: byte-level BPE with Qwen's conventions, small enough for a tiny model."""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.lab.cases import Case, stream

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


def build_tokenizer(seed: int = 0, conversations: int = 4000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on training conversations."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    added = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    added += [AddedToken(token, special=False, normalized=False) for token in VISIBLE]
    # Control tokens are no text: they must not shape the merges.
    control = "|".join(re.escape(token) for token in SPECIAL + VISIBLE)
    bare = wrap(bpe)
    corpus = (
        piece
        for case, _ in zip(stream(seed, "train"), range(conversations), strict=False)
        for piece in re.split(control, render(bare, case) + render_answer(bare, case))
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(added),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_tokens(added)
    return wrap(bpe)


def wrap(bpe: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        chat_template=TEMPLATE.read_text(),
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


def render_answer(tokenizer: PreTrainedTokenizerFast, case: Case) -> str:
    """The right turn of a case as the template writes it, with its end token."""
    text = tokenizer.apply_chat_template([case.answer], tokenize=False)
    assert isinstance(text, str)
    return text.removeprefix(f"{START}assistant\n").removesuffix("\n")


def token_ids(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens]


def spell(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """The text of tokens, control tokens included."""
    text = tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text
