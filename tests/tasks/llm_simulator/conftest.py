"""A running simulator and messages made with the project's own templates."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prompts.catalog import load_template
from prompts.traits import style_text
from tasks._llm.simulator.process import SimulatorProcess, start_simulator
from tasks._llm.simulator.settings import SimulatorSettings

API_KEY = "not-a-real-key"


@pytest.fixture(scope="session")
def served_settings() -> SimulatorSettings:
    return SimulatorSettings(seed=7, api_key=API_KEY)


@pytest.fixture(scope="session")
def simulator(served_settings: SimulatorSettings) -> Iterator[SimulatorProcess]:
    with start_simulator(served_settings) as process:
        yield process


@pytest.fixture(scope="session")
def ask_answer() -> Callable[..., list[Any]]:
    """Return messages that ask for an answer, styled, plain, or as a revision."""

    def messages(prompt: str, *traits: str, draft: str | None = None) -> list[Any]:
        if draft is not None:
            template = load_template("revise_attributes")
            return list(template.render(style=style_text(traits), prompt=prompt, draft=draft))
        if traits:
            template = load_template("respond_attributes")
            return list(template.render(style=style_text(traits), prompt=prompt))
        return list(load_template("respond_base").render(prompt=prompt))

    return messages


@pytest.fixture(scope="session")
def ask_verdict() -> Callable[..., list[Any]]:
    """Return messages that ask for a verdict."""

    def messages(persona: str, prompt: str, first: str, second: str) -> list[Any]:
        template = load_template("judge_attributes")
        return list(
            template.render(persona=persona, prompt=prompt, response_1=first, response_2=second)
        )

    return messages


@pytest.fixture(scope="session")
def some_prompts() -> tuple[str, ...]:
    return (
        "How do I start learning guitar and become a master at it?",
        "What are the names of some famous actors who began on Broadway?",
        "Write a short letter to my neighbor about the noise from his lawn mower.",
        "Why do leaves change color in autumn?",
        "List five ideas for a birthday party with a pirate theme.",
        "My sourdough bread never rises. What is going wrong?",
        "Explain the difference between a virus and a bacterium to a child.",
        "Plan three days in Lisbon for a family on a small budget.",
        "Is it worth buying an electric car if I drive 5,000 miles a year?",
        "Translate 'good morning' into Japanese, please!",
        "Give me an amazing, funny joke about cats???",
        "hi",
    )
