"""Which real users and which of their prompts are held out, where hardly any pair is shared."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from tasks._seeds import stable_integer, stable_shuffle
from tasks._stages.split import held_out
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.tables import TABLES


class OwnSplit(NamedTuple):
    """Sides, and what had to be given up."""

    new_users: set[str]
    new_pairs: set[str]
    facts: dict[str, int]


def split_own(
    seed: int,
    cells: list[tuple[str, str]],
    prompt_of: dict[str, str],
    new_user_share: float,
    new_pair_share: float,
    test_share: float,
) -> OwnSplit:
    """Holds out users, and of everybody's prompts some.

    Held-out users are drawn among those who answered on two prompts or more, since one to learn
    from and one to be tested on are needed; where there is no such user, among all. A prompt
    that one user alone answered on goes to that user's own draw, so that everybody keeps some on
    either side; a prompt of several users is drawn once for all. All pairs of a prompt go where
    the prompt goes. Only where all data are about one prompt are its pairs drawn instead, and
    ``prompts on both sides`` is 1.

    Args:
        seed: Seed.
        cells: (user, pair) of every answered pair.
        prompt_of: Prompt of every pair; prompts of equal text should have the same name here.
        new_user_share: Share of users held out.
        new_pair_share: Share of the shared prompts, and of each training user's own, that is new.
        test_share: Share of a held-out user's own prompts that is new, i.e. kept for the test.

    Raises:
        InputRejected: One user alone, or one pair alone.
    """
    both_sides = int(len(set(prompt_of.values())) < 2)
    unit_of = {pair: pair for pair in prompt_of} if both_sides else prompt_of
    units_of_user: dict[str, set[str]] = {}
    users_of_unit: dict[str, set[str]] = {}
    for user, pair in cells:
        units_of_user.setdefault(user, set()).add(unit_of[pair])
        users_of_unit.setdefault(unit_of[pair], set()).add(user)
    if len(users_of_unit) < 2:
        raise InputRejected(
            "split: all answers are about one pair; expected at least 2 pairs, one to learn from"
            " and one to hold out; add data"
        )
    able = sorted(user for user, units in units_of_user.items() if len(units) > 1)
    new_users = held_out(seed, "users", sorted(units_of_user), new_user_share)
    if able:
        wanted = min(len(new_users), len(units_of_user) - 1)
        new_users = set(stable_shuffle(seed, "split-users", able)[:wanted])
    new_units: set[str] = set()
    shared = sorted(unit for unit, users in users_of_unit.items() if len(users) > 1)
    if len(shared) > 1:
        new_units |= held_out(seed, "prompts", shared, new_pair_share)
    for user, units in units_of_user.items():
        own = sorted(unit for unit in units if len(users_of_unit[unit]) == 1)
        share = test_share if user in new_users else new_pair_share
        new_units |= _own_draw(seed, user, own, share)
    for user in stable_shuffle(seed, "split-repair", new_users):
        _give_both_sides(seed, user, units_of_user[user], users_of_unit, new_units)
    new_pairs = {pair for pair, unit in unit_of.items() if unit in new_units}
    facts = _facts(cells, new_users, new_pairs, users_of_unit)
    return OwnSplit(new_users, new_pairs, {**facts, "prompts on both sides": both_sides})


def _own_draw(seed: int, user: str, own: list[str], share: float) -> set[str]:
    if not own:
        return set()
    # Shares of few prompts are rounded by chance, so that users with one each add up to the share.
    order = stable_shuffle(seed, f"split-own-{user}", own)
    exact = share * len(own)
    chance = stable_integer(seed, "split-round", user) / 2**64
    wanted = int(exact) + int(chance < exact - int(exact))
    if len(own) > 1:
        wanted = min(max(wanted, 1), len(own) - 1)
    return set(order[:wanted])


def _give_both_sides(
    seed: int,
    user: str,
    units: set[str],
    users_of_unit: dict[str, set[str]],
    new_units: set[str],
) -> None:
    """Moves one prompt of a held-out user that has several, all on one side."""
    is_new = {unit in new_units for unit in units}
    if len(units) < 2 or len(is_new) == 2:
        return
    order = stable_shuffle(seed, "split-prompts", units)
    moved = min(order, key=lambda unit: len(users_of_unit[unit]))
    new_units ^= {moved}


def _facts(
    cells: list[tuple[str, str]],
    new_users: set[str],
    new_pairs: set[str],
    users_of_unit: dict[str, set[str]],
) -> dict[str, int]:
    users_of_pair = Counter(pair for _, pair in cells)
    test = {user for user, pair in cells if user in new_users and pair in new_pairs}
    calibration = {user for user, pair in cells if user in new_users and pair not in new_pairs}
    return {
        "answered cells": len(cells),
        "users with answers": len({user for user, _ in cells}),
        "pairs": len(users_of_pair),
        "pairs of several users": sum(count > 1 for count in users_of_pair.values()),
        "prompts": len(users_of_unit),
        "prompts of several users": sum(len(users) > 1 for users in users_of_unit.values()),
        "held-out users": len(new_users),
        "held-out users without a test pair": len(new_users - test),
        "held-out users without an answer to learn from": len(new_users - calibration),
    }


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``splits`` and ``split_facts``."""
    config = inputs.config
    preferences = inputs.read("preferences")
    cells = list(
        zip(preferences["persona_id"].to_pylist(), preferences["pair_id"].to_pylist(), strict=True)
    )
    text = inputs.lookup("prompts", "prompt_id", "prompt_text")
    prompt_of = inputs.lookup("pairs", "pair_id", "prompt_id")
    # A prompt under two names is one prompt: it must not be on both sides.
    same = {one: " ".join(text[one].split()).casefold() for one in text}
    found = split_own(
        config["seed"],
        cells,
        {pair: same[one] for pair, one in prompt_of.items()},
        config["new_user_share"],
        config["new_pair_share"],
        config["test_share"],
    )
    rows = [("pair", one, one in found.new_pairs) for one in sorted(prompt_of)]
    users = sorted({user for user, _ in cells})
    rows += [("persona", one, one in found.new_users) for one in users]
    splits = pa.table(
        {
            "entity_kind": [kind for kind, _, _ in rows],
            "entity_id": [one for _, one, _ in rows],
            "side": ["new" if is_new else "seen" for _, _, is_new in rows],
        },
        TABLES["splits"].schema,
    )
    facts = [{"fact": fact, "n_counted": count} for fact, count in found.facts.items()]
    return {
        "splits": Output(splits),
        "split_facts": Output(pa.Table.from_pylist(facts, TABLES["split_facts"].schema)),
    }


STAGE = Stage(
    name="split_own",
    reads=("prompts", "pairs", "preferences"),
    writes=("splits", "split_facts"),
    module=__name__,
    build=build,
)
