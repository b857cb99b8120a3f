"""The state of one sequence under a guard."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import StateError
from ..formats.nodes import Region
from ..grammar.completion import Frontier
from ..parsing.value_words import is_word
from ..report.report import Intervention, Position, Report, Step
from .row_mask import allow, allows
from .still_text import Mask, StillText, shared_mask

if TYPE_CHECKING:
    from .guard import Guard

_RECENT = 8  # how many tokens before forced text can bear on how it is tokenised


class GuardState:
    """Where one sequence stands: what is legal next, and what was done so far.

    Cheap to copy and to roll back. Near the end of the token budget it narrows the mask, so that
    every turn ends closed within `max_new_tokens`.

    Attributes:
        guard: the compiled request.
        max_new_tokens: the budget, end token included.
        ids: the tokens accepted so far.
        done: an end token was accepted.
        pressure: mask pressure so far, in nats.
        interventions: what the guard did so far.
        steps: what the watch read so far, where it is to be kept.
        mentions: the places of ids that are, or spell, a control token that is a word of prose or
            of reasoning.
        quoted: the places of control tokens that are words of a call's values.
        lost: the guard does not hold the turn any more: it is unguarded and has left the grammar,
            or the mask engine cannot follow it.
        opener_shift: by how much a calibration moved the opener's log-odds.
        cut: after how many tokens the budget, not the model, ended the turn; None: it did not. What
            follows is the shortest completion (see `Guard.read`).
    """

    def __init__(self, guard: Guard, max_new_tokens: int) -> None:
        self.guard = guard
        self.max_new_tokens = max_new_tokens
        self.ids: list[int] = []
        self.done = False
        self.pressure = 0.0
        self.interventions: list[Intervention] = []
        self.steps: list[Step] | None = None
        self.mentions: frozenset[int] = frozenset()
        self.quoted: frozenset[int] = frozenset()
        self.lost = False
        self.opener_shift = 0.0
        self.cut: int | None = None
        self.matcher = guard.compiled.start()
        self._fed: list[int] = []  # the places of ids, for each token that the engine has taken
        self._controls: list[int] = []  # where control tokens stand
        self._still = StillText(unsure=0)
        self._text = b""
        self._text_ids = 0  # how many of the ids `_text` spells
        self._frontier: Frontier = guard.completer.beginning
        self._walked = 0  # up to where in the text the frontier stands
        self._word: int | None = None  # a control token that may be the next word
        self._said: int | None = None  # the same of a word in a value
        self._doubted: int | None = None  # where an opener stands that is likely to be a word
        # a shortest completion, and where it began
        self._way: list[int] | None = guard.shortest_turn
        self._way_from = 0
        self._check_at = max_new_tokens
        self._may_be_bare = True
        self.tight()  # finds out when to look next

    @property
    def remaining(self) -> int:
        """How many tokens the budget leaves."""
        return self.max_new_tokens - len(self.ids)

    @property
    def region(self) -> Region:
        """Where the sequence is: `reasoning`, `text`, `call` or `done`."""
        if self.done:
            return "done"
        self._follow()
        return self.guard.completer.region(self._frontier)

    @property
    def position(self) -> Position:
        """Where the sequence stands, as far as control tokens are concerned."""
        if not self.ids:
            return "start"
        guard = self.guard
        region = self.region
        controls = guard.control_texts
        last = self._last_control(len(self.ids))
        blank = self._is_blank_behind(last)
        match region:
            case "reasoning":
                return "reasoning"
            case "call" if last >= 0 and controls[self.ids[last]] == guard.format.opener and blank:
                return "opened"
            case "call":
                inside = guard.completer.inside_value(self._frontier, self._text)
                return "value" if inside else "structure"
            case _ if last >= 0 and controls[self.ids[last]] == guard.format.closer:
                return "closed"
            case _:
                return "start" if blank and last < 0 else "text"

    @property
    def before_calls(self) -> bool:
        """Whether it stands in text that no call came before, and one may be opened."""
        if self.guard.tool_choice != "auto" or self.region != "text":
            return False
        last = self._last_control(len(self.ids))
        before = self.guard.control_texts[self.ids[last]] if last >= 0 else ""
        return not before or before in self.guard.format.reasoning_closers

    @property
    def undecided(self) -> bool:
        """Whether the turn has yet to decide between a call and a reply: nothing but white space
        stands there, or nothing but that after the reasoning."""
        last = self._last_control(len(self.ids))
        return self.before_calls and self._is_blank_behind(last)

    def mask(self, preferred: Sequence[int] = ()) -> Mask:
        """The legal next tokens, one bit each, as int32 words of shape [(vocabulary + 31) // 32].

        Args:
            preferred: the ids that the model wants most, best first. When the budget is nearly
                spent, only those of them stay legal that leave room to end the turn; where the best
                does not, the budget cuts the turn: only the shortest completion may follow.
        """
        words = self.matcher.mask()
        if self.tight():
            legal = [token for token in preferred if allows(words, token)]
            words[:] = 0
            for token in self.narrow(legal):
                allow(words, token)
        return words

    def still_mask(self) -> Mask | None:
        """The mask, where it stays the same from token to token (see `StillText`), budgets aside;
        None: it is to be computed."""
        if self._still.unsure is not None:
            self._still = self._looked_at(self._still, self._still.unsure)
        return self._still.mask if self._still.unsure is None else None

    def _looked_at(self, still: StillText, unsure: int) -> StillText:
        """What is known of the text after a look at what is unsure of it.

        Whether it is free text is found out once, by walking the grammar; from then on the ids that
        are unsure show whether it goes on.
        """
        guard = self.guard
        if still.free is False or unsure == len(self.ids) or not guard.plain[self.ids[-1]]:
            return still
        text = guard.vocabulary.bytes_of(self.ids[unsure:])
        if still.free:
            if guard.completer.begins_control(text):
                return still
            if guard.completer.has_control(text):
                return StillText(unsure, False, len(self.ids))
            return StillText(None, True, still.seen, still.mask)
        if not text.strip():
            return still
        self._follow()
        if guard.completer.begins_control(self._text):
            return still
        if not guard.completer.in_free_text(self._frontier, self._text):
            return StillText(unsure, False, len(self.ids))
        return StillText(None, True, len(self.ids), shared_mask(self.matcher.mask().tobytes()))

    def _still_at(self, kept: int) -> StillText:
        """What is known of the text once the ids are cut there."""
        still = self._still
        if still.free is None or still.seen > kept:
            return StillText(unsure=self._last_control(kept) + 1)
        if not still.free or (still.unsure is not None and still.unsure < kept):
            return still
        # It was read further than that, and holds no control token; but one may have begun.
        recent = range(max(still.seen, kept - self.guard.completer.longest_control), kept)
        begun = (place for place in recent if not self.guard.plain[self.ids[place]])
        return replace(still, unsure=next(begun, None))

    def allows(self, token: int) -> bool:
        """Whether a token can be taken without a look at the mask: it is legal, far from the end of
        the budget, and does not follow an opener that may be a mention."""
        if self.done or self.tight() or self.opened_in_prose:
            return False
        if self.lost:
            return True
        if self.matcher.is_stopped():
            return token in self.guard.vocabulary.end_ids
        return self.matcher.accepts(token)

    def accept(self, token: int) -> bool:
        """Takes a sampled token; False, and nothing changes, if it is illegal here."""
        if self.done:
            return False
        if self.matcher.broken:
            return self._let_pass(token)
        word, self._word = self._word, None
        said, self._said = self._said, None
        if token == word:
            self.mentions |= {len(self.ids)}
            self.ids.append(token)
            return True
        if token == said:
            spelled = self._spelled_out(token)
            self._fed += [len(self.ids)] * self.matcher.accept(spelled)
            self.quoted |= {len(self.ids)}
            self.ids.append(token)
            return True
        still = self._still
        if still.unsure is None and still.mask is not None and self.guard.plain[token]:
            # The engine would be where it is, so it need not hear of it.
            if not allows(still.mask, token):
                return False
            self.ids.append(token)
            return True
        end = token in self.guard.vocabulary.end_ids
        # Where nothing but the end can follow, the engine stops by itself before it sees it.
        stopped = self.matcher.is_stopped()
        if not (end if stopped else self.matcher.accept([token]) == 1):
            return False
        if token in self.guard.control_texts:
            self._controls.append(len(self.ids))
            self._still = StillText(unsure=len(self.ids) + 1)
        elif still.unsure is None and not self.guard.plain[token]:
            self._still = replace(still, unsure=len(self.ids))
        if not stopped:
            self._fed.append(len(self.ids))
        self.ids.append(token)
        self.done = end
        self._doubt()
        return True

    def _let_pass(self, token: int) -> bool:
        """Takes a token of a turn that the mask engine cannot follow, and says so once."""
        if not self.lost:
            self.lost = True
            spelled = self.guard.vocabulary.text_of([token])
            reason = (
                f"the mask engine cannot follow ({self.matcher.broken}): unguarded from here on"
            )
            self.interventions.append(
                Intervention(len(self.ids), "text", spelled, token, None, "unguard", reason)
            )
        self.ids.append(token)
        self.done = token in self.guard.vocabulary.end_ids
        return True

    def watch(self, token: int) -> None:
        """Takes a token of an unguarded turn, and stays where the turn leaves the grammar."""
        self.lost = self.lost or not self.accept(token)

    def retrace(self, token: int) -> bool:
        """Takes a token of a turn that is guarded elsewhere, by one that sees its logits; False if
        it is illegal.

        A control token in prose was a mention there if this token shows it.
        """
        return self.accept(token) or (self.mention(token) is not None and self.accept(token))

    def forced(self) -> list[int]:
        """The tokens that must follow, in the tokenizer's own spelling; often none.

        Where more text could still merge with the last of them, it is left out.
        """
        data = b"" if self.done else self.matcher.forced()
        if not data:
            return []
        return self.guard.vocabulary.engine.tokenize_partial(data, self.ids[-_RECENT:])[0]

    def rollback(self, tokens: int) -> None:
        """Takes back the last tokens.

        Raises:
            StateError: there are not that many.
        """
        if not 0 <= tokens <= len(self.ids):
            raise StateError(f"cannot roll back {tokens} tokens: the turn has {len(self.ids)}")
        kept = len(self.ids) - tokens
        if not self._unfeed(kept):
            raise StateError(f"the mask engine cannot roll back {tokens} tokens")
        if tokens:
            self._cut_text(kept)
            del self.ids[-tokens:]
            self._controls = [place for place in self._controls if place < kept]
            if self.steps is not None:
                del self.steps[len(self.ids) :]
            self.mentions = frozenset(place for place in self.mentions if place < kept)
            self.quoted = frozenset(place for place in self.quoted if place < kept)
            self._word = self._said = None
            self._still = self._still_at(kept)
            self.done = False
            if self._doubted is not None and self._doubted >= kept:
                self._doubted = None
            self._check_at = self.max_new_tokens
            self._may_be_bare = True
            if self._way_from > len(self.ids):
                self._way = None
            if self.cut is not None and self.cut >= kept:
                self.cut = None

    @property
    def may_mention(self) -> bool:
        """Whether the next token may show that a control token is a word, or be one."""
        return self._may_be_prose or self._may_be_quoted or self._may_be_thought

    @property
    def _may_be_prose(self) -> bool:
        """A word of prose: behind an opener there, inside one that is being spelled, in quotes, and
        where there was a mention."""
        if self.guard.tool_choice != "auto" or not self.ids or self.done or self.lost:
            return False
        if self.mentions or self._doubted is not None:
            return True
        words = self.guard.words
        return words.may_follow(self.ids[-1]) and (
            words.doubtful(self._read()) or self._opened() is not None
        )

    @property
    def _may_be_quoted(self) -> bool:
        """A word of a value: where words are set apart there, and where there was one."""
        if not self.ids or self.done or self.lost:
            return False
        return bool(self.quoted) or self.guard.words.may_set_apart(self.ids[-1])

    @property
    def _may_be_thought(self) -> bool:
        """A word of reasoning: where words are set apart there, and where there was one."""
        if not self.ids or self.done or self.lost:
            return False
        return bool(self.mentions) or self.guard.words.may_set_apart(self.ids[-1])

    def _thinks_of(self, token: int) -> bool:
        """Whether a control token may stand as a word of reasoning: set apart from words on its
        line, where a model that means it opens a call on a line of its own, or right behind its
        words; or in a call that stands there."""
        if not self._may_be_thought or token not in self.guard.words.thinkable:
            return False
        if self.region != "reasoning":
            return False
        if self.mentions and token in self.guard.words.quotable:
            return True
        last = self._last_control(len(self.ids))
        said = self.guard.vocabulary.text_of(self.ids[last + 1 :]).rpartition("\n")[2]
        word = self.guard.control_texts[token]
        return is_word(said, word, {word})

    def _quotes(self, token: int) -> bool:
        """Whether a control token may stand as a word of a value, which its schema allows."""
        if not self._may_be_quoted or token not in self.guard.words.sayable:
            return False
        if self.region != "call":
            return False
        parser = self.guard.parser(self.mentions)
        parser.feed(self.ids)
        if not parser.says(token):
            return False
        spelled = self._spelled_out(token)
        taken = self.matcher.accept(spelled)
        return self.matcher.rollback(taken) and taken == len(spelled)

    def _spelled_out(self, token: int) -> list[int]:
        vocabulary = self.guard.vocabulary
        return vocabulary.ids_of(vocabulary.bytes_of([token]))

    @property
    def opened_in_prose(self) -> bool:
        """Whether an opener stands after words of prose, with nothing but white space after it, and
        need not be one."""
        return self._may_be_prose and self._opened() is not None

    def mention(self, token: int) -> int | None:
        """Lets a control token stand as a word, if `token`, which is illegal, shows it.

        It is a word of a value, or of reasoning; or it is one of prose, and stands before the
        token, which goes on with other words; or the token completes it, or is it. Of an opener in
        code, or one that is spelled although there is a token for it, all that follows may be
        words, too; and the latter may end a reply.

        Returns:
            Its place in the ids; None if there is none, and then nothing changes.
        """
        if self._quotes(token):
            self._said = token
            return len(self.ids)
        if self._thinks_of(token):
            self._word = token
            return len(self.ids)
        if not self._may_be_prose:
            return None
        words, text = self.guard.words, self._read()
        opened, ends = self._opened(), token in self.guard.vocabulary.end_ids
        if ends and opened is not None and self._is_odd(opened[0]):
            return self._unread(*opened)
        if ends or token in self.guard.control_texts:
            quoted = token in words.quotable and words.in_quotes(text, bool(self.mentions))
            if not quoted or self.region != "text":
                return None
            self._word = token
            return len(self.ids)
        if opened is not None:
            return self._unread(*opened)
        if self._doubted is not None:
            return self._unread(self._doubted, len(self.ids))
        said = self.guard.vocabulary.bytes_of([token])
        found = words.completed(text, said, bool(self.mentions))
        if found is None or self.region == "call":
            return None
        return self._unread(*self._places(*found))

    def _opened(self) -> tuple[int, int] | None:
        """The ids of the opener that stands at the end, white space aside, if it may be a word."""
        found = self.guard.words.opener(self._read())
        if found is None:
            return None
        ids = self._places(*found)
        if ids[0] in self.quoted:
            return None
        said = self._is_odd(ids[0]) or self.guard.words.said(self._text[: found[0]])
        return ids if said else None

    def _is_odd(self, place: int) -> bool:
        """Whether an opener is spelled there although there is a token for it."""
        return self.guard.words.has_opener and self.ids[place] not in self.guard.control_texts

    def _doubt(self) -> None:
        """Notes an opener in prose that is not written as a model writes one that it means."""
        words = self.guard.words
        if self.done or not words.may_follow(self.ids[-1]) or self.guard.tool_choice != "auto":
            return
        spell = self.guard.vocabulary.bytes_of
        found = words.opened(self._read(), len(spell(self.ids[-1:])))
        if found is None:
            return
        place, _ = self._places(*found)
        in_code = words.said(self._text[: found[0]]) and words.in_code(spell(self.ids[:place]))
        if in_code or self._is_odd(place):
            self._doubted = place

    def _places(self, start: int, end: int) -> tuple[int, int]:
        """The first of the ids that spell a part of the text, and the one after the last."""
        size, place = len(self._text), len(self.ids)
        after = place
        while size > start:
            place -= 1
            if place in self.mentions:
                continue
            if size >= end:
                after = place + 1
            size -= len(self.guard.vocabulary.bytes_of([self.ids[place]]))
        return place, after

    def _unread(self, place: int, after: int) -> int:
        """Takes these ids from the grammar: they are words; returns the first."""
        if not self._unfeed(place):
            raise StateError(f"the mask engine cannot go back to the word at token {place}")
        self._cut_text(place)
        fed = self.matcher.accept(self.ids[after:])
        self._fed += range(after, after + fed)
        self.mentions |= {*range(place, after)}
        self._controls = [control for control in self._controls if control < place]
        self._doubted = self._way = None
        self._still = StillText(unsure=self._last_control(place) + 1)
        return place

    def _unfeed(self, place: int) -> bool:
        """Takes back what the engine took of the ids from there on; False if it cannot."""
        first = bisect_left(self._fed, place)
        back = len(self._fed) - first
        del self._fed[first:]
        return not back or self.matcher.rollback(back)

    @property
    def may_be_bare(self) -> bool:
        """Whether the turn's text may still turn out to be such a body; see `bare_call`."""
        return (
            bool(self.guard.format.opener) and self._may_be_bare and not self.done and not self.lost
        )

    def bare_call(self) -> int:
        """How many tokens back the bare body of a call to an offered tool began; 0 if none did.

        The turn's text is such a body when, with the opener before it, it would be a legal call,
        and it names an offered tool. One look settles it for ordinary prose.
        """
        guard = self.guard
        if not self.may_be_bare:
            return 0
        start = self._last_control(len(self.ids)) + 1
        text = guard.vocabulary.bytes_of(self.ids[start:]).lstrip()
        if not text:
            return 0
        before = guard.vocabulary.bytes_of(self.ids[:start])
        tagged = before + guard.format.opener.encode() + text
        completer = guard.completer
        self._may_be_bare = bool(completer.advance(completer.beginning, tagged))
        named = any(name.encode() in text for name in guard.toolset.names)
        return len(self.ids) - start if self._may_be_bare and named else 0

    def lead(self) -> list[int]:
        """Takes back such a body, for the opener to go before it; returns the body, if there is
        one."""
        bare = self.bare_call()
        opener = self.guard.opener_ids
        if not bare or len(self.ids) + len(opener) >= self.max_new_tokens:
            return []
        body = self.ids[-bare:]
        self.rollback(bare)
        self.interventions.append(
            Intervention(
                len(self.ids), "text", self.guard.vocabulary.text_of(body), body[0], None, "lead",
                "a call without its opener",
            )
        )  # fmt: skip
        for token in opener:
            if not self.accept(token):
                raise StateError("an opener is refused where the body of a call was taken for one")
        return body

    def report(self, forward_passes: int, seconds: float, forced: int = 0) -> Report:
        """What was done so far, with what the decoding loop knows."""
        return Report(
            "enforce",
            len(self.ids),
            forced,
            forward_passes,
            seconds,
            self.pressure,
            tuple(self.interventions),
            tuple(self.steps or ()),
            cut=self.cut is not None,
        )

    def copy(self) -> GuardState:
        """An independent copy."""
        other = GuardState.__new__(GuardState)
        other.__dict__.update(self.__dict__)
        other.ids = self.ids.copy()
        other._fed = self._fed.copy()
        other._controls = self._controls.copy()
        other.interventions = self.interventions.copy()
        other.steps = None if self.steps is None else self.steps.copy()
        other.matcher = self.matcher.copy()
        return other

    def tight(self) -> bool:
        """Whether the next token could leave too little of the budget to end the turn.

        The shortest completion is looked up only when it could have become too long: one token
        adds at most `guard.longest_step` to it.
        """
        if self.done or self.lost or self.remaining > self._check_at:
            return False
        slack = self.remaining - 1 - len(self._completion())
        step = self.guard.longest_step + 1
        self._check_at = self.remaining - slack // step
        return slack < step

    def narrow(self, legal: Sequence[int]) -> list[int]:
        """Those of the legal tokens, best first, that leave room to end the turn.

        Where the best does not, the budget cuts the turn: the way to its end, from there on. What
        the model likes second best is not what it was saying.
        """
        if self.cut is None:
            self._follow()
            if legal and self._leaves_room(legal[0]):
                return [legal[0], *filter(self._leaves_room, legal[1:])]
            self.cut = len(self.ids)
        completion = self._completion()
        return completion[:1] if completion else list(self.guard.vocabulary.end_ids)

    def _leaves_room(self, token: int) -> bool:
        if token in self.guard.vocabulary.end_ids:
            return True
        text = self._text + self.guard.vocabulary.bytes_of([token])
        completer = self.guard.completer
        frontier = completer.advance(self._frontier, text)
        pieces = completer.complete(frontier, text)
        return pieces is not None and len(self.guard.spell(pieces)) + 1 < self.remaining

    def _last_control(self, end: int) -> int:
        """Where the last control token stands before `end`; -1: nowhere."""
        places = (place for place in reversed(self._controls) if place < end)
        return next((place for place in places if place not in self.mentions), -1)

    def _is_blank_behind(self, last: int) -> bool:
        """Whether nothing but white space stands behind a place of the ids."""
        spell = self.guard.vocabulary.bytes_of
        return not any(spell([self.ids[at]]).strip() for at in range(last + 1, len(self.ids)))

    def _cut_text(self, kept: int) -> None:
        """Takes from the text what ids spell from there on."""
        if self._text_ids > kept:
            self._text = self._text[: len(self._text) - len(self._spelled(kept, self._text_ids))]
            self._text_ids = kept
            if self._walked > len(self._text):
                self._frontier, self._walked = self.guard.completer.beginning, 0

    def _spelled(self, start: int, end: int) -> bytes:
        """What these ids spell, but for mentions."""
        read = [self.ids[place] for place in range(start, end) if place not in self.mentions]
        return self.guard.vocabulary.bytes_of(read)

    def _read(self) -> bytes:
        """What all ids spell, but for mentions."""
        if self._text_ids < len(self.ids):
            self._text += self._spelled(self._text_ids, len(self.ids))
            self._text_ids = len(self.ids)
        return self._text

    def _follow(self) -> None:
        """Brings the frontier to the end of the text."""
        text = self._read()
        if self._walked < len(text):
            self._frontier = self.guard.completer.advance(self._frontier, text, self._walked)
            self._walked = len(text)

    def _completion(self) -> list[int]:
        """The ids of the shortest completion, without the end token.

        Once begun it is kept to: another one may be as short in bytes, and longer in tokens.
        """
        done = self.ids[self._way_from :]
        if self._way is not None and self._way[: len(done)] == done:
            return self._way[len(done) :]
        self._follow()
        pieces = self.guard.completer.complete(self._frontier, self._text)
        if pieces is None:
            raise StateError(
                f"no completion of a legal turn was found after {self._text[-80:]!r}: please "
                "report this with the tools that were offered"
            )
        self._way, self._way_from = self.guard.spell(pieces), len(self.ids)
        return self._way
