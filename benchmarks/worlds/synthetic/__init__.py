"""Two synthetic worlds that have nothing in common with the lab but its machinery."""

from dataclasses import replace
from pathlib import Path

from tokenizers import Regex

from benchmarks.lab.cases import CHAT_WORDS
from benchmarks.lab.reinforce import Reinforcement
from benchmarks.lab.supervise import Supervision
from benchmarks.lab.tokenizer import Spelling
from benchmarks.worlds.synthetic import harbour, museum, rewards
from benchmarks.worlds.synthetic.world import Disease, World

HERE = Path(__file__).parent
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""As Qwen and Llama 3 split: a mark or a space goes with the word behind it, marks with each other
(`":`, ` ["`, `"}]`) and with the line's end (`>\\n`)."""
ELSEWHERE = (
    *map(str, range(1000)),
    (HERE.parents[2] / "LICENSE").read_text(),
    *map(" ".join, [*CHAT_WORDS.values(), *museum.WORDS.values()]),
)
"""What this world's people do not say: a real vocabulary is made for more than one world."""
MISTRAL_SPECIAL = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip
LESSON = Supervision(steps=600, rate=2e-3, cycle=600, cooldown=100, batch=8, half=False)
"""Short: the layers can copy already."""
BRIEF = Reinforcement(
    rewards.quick_opener, steps=40, rate=4e-4, temperature=2.5, kinds=("one", "parallel"), limit=48
)
WORLDS = {
    "xml": World(
        harbour.TALK,
        Spelling(4096, Regex(SPLIT % 3), template=HERE / "xml.jinja", seen=ELSEWHERE),
        wire_format="qwen3_xml",
        architecture="qwen2",
        lesson=LESSON,
        diseases={
            "quick": Disease("Ends its turn where a call begins.", BRIEF),
            "wordy": Disease(
                "Runs on.",
                replace(BRIEF, reward=rewards.wordy, limit=112),
            ),
            "unopened": Disease(
                "Writes the function's element without its tags.",
                replace(BRIEF, reward=rewards.bare_element, limit=96),
            ),
        },
        limit=144,
    ),
    "mistral": World(
        museum.TALK,
        Spelling(
            2048,
            Regex(SPLIT % 1),
            special=MISTRAL_SPECIAL,
            visible=(),
            end="</s>",
            pad="<unk>",
            template=HERE / "mistral.jinja",
        ),
        wire_format="mistral_json",
        architecture="llama",
        lesson=LESSON,
        diseases={
            "quick": Disease("Opens a call and ends the turn, or writes what is no call.", BRIEF),
            "bare": Disease(
                "Writes calls as bare JSON.",
                replace(BRIEF, reward=rewards.bare_json, limit=96),
            ),
            "many": Disease(
                "Calls, and calls again, whatever is asked.",
                replace(BRIEF, reward=rewards.many_calls, limit=112, kinds=("one", "chat")),
            ),
        },
        limit=144,
        seed=1,
    ),
}
"""By name."""
