"""The prompts that the package brings along."""

import re

from prompts.starter import starter_prompts
from prompts.traits import TRAITS


def test_there_are_at_least_120_different_prompts_with_running_ids() -> None:
    prompts = starter_prompts()
    assert len(prompts) >= 120
    assert len({p.text.casefold() for p in prompts}) == len(prompts)
    assert [p.prompt_id for p in prompts] == [f"p{i:03d}" for i in range(1, len(prompts) + 1)]


def test_every_prompt_has_between_6_and_40_words() -> None:
    for prompt in starter_prompts():
        assert 6 <= len(prompt.text.split()) <= 40, prompt
        assert prompt.text == " ".join(prompt.text.split())


def test_no_prompt_asks_for_a_trait_by_name() -> None:
    for prompt in starter_prompts():
        assert not set(re.findall(r"[a-z]+", prompt.text.lower())) & set(TRAITS), prompt


def test_no_two_prompts_begin_with_the_same_five_words() -> None:
    openings = [tuple(p.text.lower().split()[:5]) for p in starter_prompts()]
    assert len(set(openings)) >= 0.95 * len(openings)
