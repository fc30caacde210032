"""The backbone and the head trained together, end to end, by eq 5 through Accelerate.

It begins at the frozen-feature fit, reads token ids only, and leaves files to its caller except
for the states a run resumes from.
"""

from typing import NamedTuple

import numpy as np
import torch

from pref_model.backbone import (
    Backbone,
    add_lora,
    merge_lora,
    without_dropout,
)
from pref_model.backbone_config import BackboneConfig, BackboneRun, Passes
from pref_model.backbone_texts import TokenTexts, make_token_texts
from pref_model.errors import BadArray
from pref_model.fit import accelerator_for, fit_reward_model, kept_cells
from pref_model.model import FitConfig, FitPoint, RewardModel
from pref_model.train_backbone_loop import BackboneFactorization, BackboneTrainer, BackboneWork
from pref_model.train_state import (
    Checkpoints,
    State,
    cpu_threads,
    fingerprint,
    load_state,
)
from pref_model.types import Ints, Preferences, make_preferences


class BackboneFit(NamedTuple):
    """A trained backbone's head, users and history; the network was trained in place.

    Attributes:
        model: Acts on embeddings of the trained backbone; `history` has the backbone's looks,
            whose train_nll is the mean over the steps since the look before.
        passes: Backbone passes made.
        passes_an_epoch: Training passes that see every label once.
    """

    model: RewardModel
    passes: Passes
    passes_an_epoch: int


def fit_backbone(
    backbone: Backbone,
    texts: TokenTexts,
    first: Ints,
    second: Ints,
    preferences: Preferences,
    n_users: int,
    fit: FitConfig,
    config: BackboneConfig,
    run: BackboneRun,
    validation: Preferences | None = None,
    checkpoints: Checkpoints | None = None,
) -> BackboneFit:
    """Train network, head and user weights by eq 5, from the frozen-feature fit on.

    1. The network as it is embeds every text that is asked about; `fit_reward_model` fits head,
       users and head strength to them (SVD, ridge, then eq 5 with the network frozen).
    2. AdamW minimizes [- sum w (A log s(f) + (1 - A) log s(-f)) + (beta/2) |Lambda|^2
       + (gamma/2) |W|^2] / sum w over network, W and Lambda.
    3. The look with the best validation likelihood is kept, the start being the first look.

    Args:
        backbone: Trained in place; adapters are merged at the end.
        texts: R texts.
        first: (M,) int64, text of each pair's first response.
        second: (M,) int64, text of its second response.
        preferences: Training cells.
        n_users: U.
        fit: What the start fits; user_l2 and ties hold for the backbone too.
        config: What is trained.
        run: How it is run; never changes the result beyond rounding.
        validation: Cells of the same users on other pairs; None runs all steps.
        checkpoints: States to resume from after an interruption, to the same bits on a CPU.

    Raises:
        BadArray: Pairs name texts that are not there, or as `fit_reward_model`.
        CheckpointCorrupt: The folder holds another fit's state.
        FitFailed: The likelihood became nan.

    Departures from the authors' code: whole pairs a batch, ties and weights used, user vectors
    regularized, dropout off (a step is a function of weights and batch, so runs resume exactly).
    """
    texts = make_token_texts(*texts)
    first, second = _check_pairs(first, second, texts.lengths.size)
    train = kept_cells(
        make_preferences(*preferences, n_users=n_users, n_pairs=first.size), fit.ties
    )
    check = None
    if validation is not None:
        check = kept_cells(
            make_preferences(*validation, n_users=n_users, n_pairs=first.size), fit.ties
        )
        check = check if check.user.size else None
    with cpu_threads(run.threads):
        return _fit(
            backbone, texts, (first, second), train, check, n_users, fit, config, run, checkpoints
        )


def _fit(
    backbone: Backbone,
    texts: TokenTexts,
    pairs: tuple[Ints, Ints],
    train: Preferences,
    check: Preferences | None,
    n_users: int,
    fit: FitConfig,
    config: BackboneConfig,
    run: BackboneRun,
    checkpoints: Checkpoints | None,
) -> BackboneFit:
    first, second = pairs
    accelerator = accelerator_for(run.run.device)
    # Master weights are float32 whatever the network was loaded in.
    network = backbone.network.to(accelerator.device, torch.float32)
    without_dropout(network)
    work = BackboneWork(accelerator, backbone, texts, first, second, run, fit.user_l2, config)
    fit_id, state = "", None
    if checkpoints is not None:
        settings = (fit, config, run.run.seed, run.precision, check is None)
        fit_id = _fit_id(backbone, texts, first, second, train, check, settings)
        state = load_state(checkpoints.folder, fit_id)
        accelerator.wait_for_everyone()  # before anyone replaces what others read
    if state is None:
        used = np.unique(np.concatenate([train.pair] + ([] if check is None else [check.pair])))
        differences = work.differences(used)
        start = fit_reward_model(differences, train, n_users, fit, run.run, check)
    else:
        start = _start_of(state, fit)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if config.lora_rank:
        add_lora(backbone, config.lora_rank, config.lora_alpha)
    module = BackboneFactorization(backbone, start)
    work.freeze_idle(module, train)
    trainer = BackboneTrainer(work, module, train, check, start, fit_id, checkpoints)
    if state is not None:
        trainer.restore(state)
    trainer.train()
    found = BackboneFit(*trainer.result())
    merge_lora(backbone)
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return found


def _check_pairs(first: Ints, second: Ints, n_texts: int) -> tuple[Ints, Ints]:
    columns = [np.asarray(column) for column in (first, second)]
    for name, column in zip(("first", "second"), columns, strict=True):
        if column.shape != columns[0].shape or not np.issubdtype(column.dtype, np.integer):
            raise BadArray(
                f"pairs: column '{name}' is {column.dtype} of shape {column.shape}, "
                "expected one text number a pair"
            )
        if column.size and not 0 <= int(column.min()) <= int(column.max()) < n_texts:
            raise BadArray(
                f"pairs: column '{name}' runs from {column.min()} to {column.max()}, "
                f"expected 0 to {n_texts - 1}"
            )
    return columns[0].astype(np.int64), columns[1].astype(np.int64)


def _fit_id(
    backbone: Backbone,
    texts: TokenTexts,
    first: Ints,
    second: Ints,
    train: Preferences,
    check: Preferences | None,
    settings: object,
) -> str:
    arrays: dict[str, object] = {"first": first, "second": second, **texts._asdict()}
    for name, cells in (("train", train), ("check", check or train)):
        arrays |= {f"{name}/{part}": column for part, column in cells._asdict().items()}
    for name, weight in backbone.network.state_dict().items():
        arrays[f"network/{name}"] = weight.cpu().numpy()
    return fingerprint((settings, backbone.layers, backbone.pooling), arrays)


def _start_of(state: State, fit: FitConfig) -> RewardModel:
    scale = state.tensors["start/scale"].numpy()
    return RewardModel(
        head=state.tensors["now/head"].numpy(),
        feature_mean=np.zeros_like(scale),
        feature_scale=scale,
        user_weights=state.tensors["now/users"].numpy(),
        config=fit,
        head_l2=state.facts["head_l2"],
        history=tuple(FitPoint(*point) for point in state.facts["start_looks"]),
    )
