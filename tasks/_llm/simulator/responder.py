"""The simulated responder: an answer in the prompt's own words, in the style asked for.

It reads the <style>, <wishes>, <examples>, <prompt> and <draft> of a request and knows no facts:
what it says about the prompt is empty by design, only the wording carries something. Asked to
criticize a draft for a <persona>, it names the traits the draft lacks for that person; a rewrite
follows its <critique>.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from prompts.traits import ATTRIBUTES, attribute_of, opposite
from tasks._llm.simulator import restyle
from tasks._llm.simulator.draws import Draws
from tasks._llm.simulator.messages import content_text, identity, tagged, traits_named
from tasks._llm.simulator.phrases import content_bank, trait_bank
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.style import score_vector, trait_evidence
from tasks._llm.simulator.tastes import taste
from tasks._llm.simulator.topics import answer_kind, topics_of
from tasks._llm.simulator.wishes import (
    asks_for_summary,
    summary_reply,
    traits_chosen,
    traits_wished,
)

RESPONDER_MODEL = "simulated-responder"

# Chance that an attribute nobody asked for shows in one mild phrase, of either sign. Without it
# all base responses would be alike, and nobody could prefer one to the other.
_MILD_RATE = 0.4


class _Shape(NamedTuple):
    """How much of everything goes into an answer of one length."""

    low_words: int
    high_words: int
    min_content: int
    n_lines: int
    n_leads: int
    n_tails: int
    mild_rate: float


_SHAPES: dict[str | None, _Shape] = {
    None: _Shape(60, 82, 2, 2, 1, 1, _MILD_RATE),
    "verbose": _Shape(135, 175, 5, 3, 2, 2, _MILD_RATE),
    "concise": _Shape(17, 27, 1, 1, 1, 0, _MILD_RATE / 2),
}
_N_VERBOSE_LINES = 3
_MOST_POINTS = 2
_LEAST_GAIN = 0.2
_POINTS = (
    "This reader wants it more {trait}.",
    "Make the wording {trait}; the draft hardly is.",
    "For this reader the answer should be {trait}.",
)
_CLOSING = frozenset({"engaging", "unengaging"})


class _Plan(NamedTuple):
    """What is decided before the content: the traits and the phrases that show them."""

    length: str | None
    shape: _Shape
    tone: tuple[str, ...]
    mild: tuple[str, ...]
    leads: tuple[str, ...]
    tails: tuple[str, ...]
    lines: tuple[str, ...]
    closing: tuple[str, ...]


def respond(
    messages: Sequence[Mapping[str, Any]],
    settings: SimulatorSettings,
    *,
    request_seed: int | None = None,
    choice: int = 0,
) -> str:
    """Write the answer to a request, determined by the seed and what the request says.

    The traits are those named as whole words in <critique> or <style>, asked for in <wishes>, or
    shown by the chosen answers of <examples>, the first of these that is there; the subject is
    <prompt>, or the last message where it has no such tag. With a <draft> the answer restyles the
    draft's sentences about the prompt instead of writing new ones; with a <persona> and a <draft>
    and no <critique> it is a critique of the draft; with <examples> and no <prompt> it is a summary
    of what they show.
    """
    if asks_for_summary(messages):
        return summary_reply(messages)
    key = identity(
        RESPONDER_MODEL, messages, seed=settings.seed, request_seed=request_seed, choice=choice
    )
    draft = tagged(messages, "draft")
    critique = tagged(messages, "critique")
    persona = tagged(messages, "persona")
    if draft is not None and persona is not None and critique is None:
        return criticized(draft, persona, Draws(key, "critique"))
    traits = _traits(messages, critique)
    prompt = tagged(messages, "prompt")
    if prompt is None:
        prompt = content_text(messages[-1]) if messages else ""
    topics = topics_of(prompt)
    plan = _plan(traits, topics, Draws(key, "style"))
    content_draws = Draws(key, "content")
    kept = _kept_of(draft, topics, plan, traits) if draft else []
    content = _content(plan, prompt, topics, kept, content_draws)
    return _compose(plan, content, Draws(key, "order"))


def _traits(messages: Sequence[Mapping[str, Any]], critique: str | None) -> tuple[str, ...]:
    named = critique or tagged(messages, "style")
    if named is not None:
        return traits_named(named)
    wishes = tagged(messages, "wishes")
    if wishes is not None:
        return traits_wished(wishes)
    return traits_chosen(tagged(messages, "examples") or "")


def criticized(draft: str, persona: str, draws: Draws) -> str:
    """Name the traits, two at most, that would please the persona most where the draft lacks them.

    What a trait would gain is the persona's weight times what its attribute's score has left.
    """
    gains = []
    for weight, score, attribute in zip(
        taste(persona), score_vector(draft), ATTRIBUTES, strict=True
    ):
        trait = attribute.first if weight > 0.0 else attribute.second
        wanted = 1.0 if weight > 0.0 else -1.0
        gains.append((abs(weight) * abs(wanted - score), trait))
    gains.sort(reverse=True)
    wanting = [trait for gain, trait in gains[:_MOST_POINTS] if gain > _LEAST_GAIN]
    if not wanting:
        return "This reader would find nothing amiss in the draft."
    return "\n".join(draws.pick(_POINTS).format(trait=trait) for trait in wanting)


def _plan(traits: Sequence[str], topics: Sequence[str], draws: Draws) -> _Plan:
    length = next((trait for trait in traits if attribute_of(trait).name == "length"), None)
    tone = tuple(trait for trait in traits if trait != length)
    shape = _SHAPES[length]
    leads: list[str] = []
    tails: list[str] = []
    lines: list[str] = []
    closing: list[str] = []
    for trait in tone:
        bank = trait_bank(trait)
        leads += draws.sample(bank.leads, shape.n_leads)
        tails += draws.sample(bank.tails, shape.n_tails)
        target = closing if trait in _CLOSING else lines
        target += draws.sample(bank.lines, shape.n_lines)
    if length == "verbose":
        lines += draws.sample(trait_bank(length).lines, _N_VERBOSE_LINES)
    if length is not None:
        bank = trait_bank(length)
        leads += draws.sample(bank.leads, 1)
        # A one-line answer has no room for a second line.
        lines += draws.sample(bank.lines, 1) if length == "concise" and not tone else []
    mild = _mild_traits(traits, shape, draws)
    for trait in mild:
        bank = trait_bank(trait)
        if draws.uniform() < 0.5:
            leads.append(draws.pick(bank.mild_leads))
        else:
            tails.append(draws.pick(bank.mild_tails))
    return _Plan(
        length,
        shape,
        tone,
        mild,
        tuple(leads),
        tuple(tails),
        tuple(_filled(line, topics, draws) for line in lines),
        tuple(_filled(line, topics, draws) for line in closing),
    )


def _mild_traits(traits: Sequence[str], shape: _Shape, draws: Draws) -> tuple[str, ...]:
    asked = {attribute_of(trait).name for trait in traits}
    mild = []
    for attribute in ATTRIBUTES:
        is_shown = draws.uniform() < shape.mild_rate
        trait = draws.pick((attribute.first, attribute.second))
        if is_shown and attribute.name != "length" and attribute.name not in asked:
            mild.append(trait)
    return tuple(mild)


def _filled(pattern: str, topics: Sequence[str], draws: Draws) -> str:
    first, second = draws.sample(topics, 2)
    return restyle.capitalized(pattern.replace("{a}", first).replace("{b}", second))


def _kept_of(draft: str, topics: Sequence[str], plan: _Plan, traits: Sequence[str]) -> list[str]:
    """Return the draft's sentences about the prompt, without what speaks against the traits.

    As many as keep the draft's length once the phrases that show the traits are added.
    """
    words = _words_of(topics)
    contrary = [opposite(trait) for trait in traits]
    sentences = restyle.sentences_of(draft)
    about = [one for one in sentences if words.intersection(re.findall(r"\w+", one.lower()))]
    cleaned = [restyle.without_trait_ends(one, contrary) for one in about or sentences]
    kept = [one for one in cleaned if all(trait_evidence(one, t) >= 0 for t in plan.tone)]
    if plan.length == "verbose":
        return kept
    if plan.length == "concise":
        shortest = sorted(kept, key=len)[: plan.shape.min_content]
        return [one for one in kept if one in shortest]
    room = len(draft.split()) - _n_words(*plan.lines, *plan.closing, *plan.leads, *plan.tails)
    # A sentence goes where the length without it is nearer to the draft's than with it.
    while len(kept) > plan.shape.min_content and 2 * (_n_words(*kept) - room) > _n_words(kept[-1]):
        kept.pop()
    return kept


def _words_of(topics: Sequence[str]) -> frozenset[str]:
    return frozenset(word.lower() for topic in topics for word in topic.split())


def _n_words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def _content(
    plan: _Plan, prompt: str, topics: Sequence[str], kept: Sequence[str], draws: Draws
) -> list[str]:
    """Return styled sentences about the prompt that fill the answer up to its length."""
    target = draws.between(plan.shape.low_words, plan.shape.high_words)
    target -= _n_words(*plan.lines, *plan.closing, *plan.leads, *plan.tails)
    kind = "short" if plan.length == "concise" else answer_kind(prompt)
    patterns = draws.shuffled(content_bank(kind))
    if kind != "short":
        more = (*content_bank("any"), *draws.sample(content_bank("linked"), 2))
        patterns = patterns[:2] + draws.shuffled(more)
    words = _words_of(topics)
    sentences = [_toned(sentence, plan, draws, words) for sentence in kept]
    # A draft sets its own length, unless a long answer is wanted or nothing of it could be kept.
    is_filled_up = not kept or plan.length == "verbose"
    for pattern in patterns if is_filled_up else ():
        if len(sentences) >= plan.shape.min_content and _n_words(*sentences) >= target:
            break
        # Swaps come before the prompt's words: those stay as the user wrote them.
        sentences.append(_filled(_toned(pattern, plan, draws), topics, draws))
    return sentences


def _toned(
    sentence: str, plan: _Plan, draws: Draws, protected: Collection[str] = frozenset()
) -> str:
    for trait in plan.tone:
        sentence = restyle.swapped(sentence, trait, draws, protected=protected)
    return restyle.punctuated(sentence, plan.tone, draws)


def _compose(plan: _Plan, content: Sequence[str], draws: Draws) -> str:
    body = restyle.decorated(content, plan.leads, plan.tails, draws)
    for line in plan.lines:
        body.insert(draws.below(len(body) + 1), line)
    text = " ".join([*body, *plan.closing])
    if "informal" in plan.tone:
        return restyle.contracted(text)
    if "formal" in plan.tone:
        return restyle.written_out(text)
    return text
