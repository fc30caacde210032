"""What a design will look like before its pairs are written. It makes no call and reads no data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks._stages.balanced import balanced_design
from tasks._stages.design_checks import DesignCheck, check_design
from tasks._stages.split import held_out
from tasks.config import FlowConfig


def design_outlook(
    config: FlowConfig, personas: Sequence[str], prompts: Sequence[str]
) -> DesignCheck:
    """The design and its training part, if every prompt gets its pair.

    Args:
        config: Design, split, seed and number of base rewards.
        personas: Ids.
        prompts: Ids; a pair has its prompt's id.

    Raises:
        InputRejected: Too few personas or prompts to split.
    """
    wanted = min(config.design.personas_per_pair or len(personas), len(personas))
    cells = balanced_design(
        config.seed, personas, prompts, wanted, is_balanced=config.design.is_balanced
    )
    new_users = held_out(config.seed, "users", list(personas), config.split.new_user_share)
    new_prompts = held_out(config.seed, "prompts", list(prompts), config.split.new_pair_share)
    return check_design(
        cells,
        config.fit.d,
        np.array([one not in new_users for one in personas]),
        np.array([one not in new_prompts for one in prompts]),
    )
