"""The 84 simulated users of the Attributes data: two traits each, never both of one attribute.

It writes their profiles; it neither samples users nor decides who is held out.
"""

from itertools import combinations
from typing import NamedTuple

from prompts.traits import ATTRIBUTES, gloss


class Persona(NamedTuple):
    """One user.

    Attributes:
        persona_id: The two traits in attribute order, e.g. ``concise+polite``.
        traits: The same two traits.
        profile: What a judge is told about this person, naming both traits.
    """

    persona_id: str
    traits: tuple[str, str]
    profile: str


def attribute_personas() -> tuple[Persona, ...]:
    """Return the 84 users: C(14, 2) pairs of traits less the 7 contradictory ones.

    The order is fixed: by the first attribute, then the second, positive traits first.
    """
    return tuple(
        _persona(trait_a, trait_b)
        for one, other in combinations(ATTRIBUTES, 2)
        for trait_a in (one.first, one.second)
        for trait_b in (other.first, other.second)
    )


def _persona(trait_a: str, trait_b: str) -> Persona:
    profile = (
        f"This person likes answers that are {trait_a} and {trait_b}.\n"
        f"{trait_a}: {gloss(trait_a)}\n"
        f"{trait_b}: {gloss(trait_b)}"
    )
    return Persona(f"{trait_a}+{trait_b}", (trait_a, trait_b), profile)
