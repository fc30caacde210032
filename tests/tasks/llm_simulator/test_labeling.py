from __future__ import annotations

import pytest

from prompts.catalog import load_template
from prompts.label import parse_label
from prompts.traits import TRAITS, opposite, style_text
from tasks._llm.simulator.labeling import asks_for_label, label_reply
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._stages.interpret import _listed


def written(trait: str, n: int = 5) -> str:
    template = load_template("respond_attributes")
    prompts = [f"How do I plant {thing}?" for thing in ("roses", "beans", "figs", "kale", "dill")]
    return _listed(
        [
            respond(template.render(prompt=one, style=style_text((trait,))), SimulatorSettings())
            for one in prompts[:n]
        ]
    )


@pytest.mark.parametrize("trait", TRAITS)
def test_the_label_names_the_trait_that_the_texts_show(trait: str) -> None:
    messages = load_template("label_base_reward").render(
        high=written(trait), low=written(opposite(trait))
    )
    assert asks_for_label(messages)
    label = parse_label(label_reply(messages)).text
    assert label is not None
    assert label.split(" and ")[0] == trait


def test_groups_alike_have_no_visible_difference() -> None:
    same = written("formal")
    messages = load_template("label_base_reward").render(high=same, low=same)
    assert parse_label(label_reply(messages)).text == "no visible difference"


def test_a_judge_s_question_is_no_question_for_a_label() -> None:
    messages = load_template("judge_attributes").render(
        persona="p", prompt="q", response_1="a", response_2="b"
    )
    assert not asks_for_label(messages)
