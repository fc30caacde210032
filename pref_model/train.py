"""Train from plain files: ``python -m pref_model.train --data FOLDER --config JSON --out FOLDER``.

The same arguments run on several processes: ``accelerate launch --num_processes N -m
pref_model.train ...`` (with ``--multi_gpu`` on processors too: without it the launcher starts a
single one there). It needs no warehouse and no flow, and goes on where a killed run of the same
settings stopped.

DATA holds ``preferences`` (user, pair, label, maybe weight), maybe ``validation`` (the same), and
``pairs``, each as .npz or .safetensors. With the head alone, ``pairs`` holds differences (M, D), or
embeddings (R, D) with first and second (M,). With a backbone, ``pairs`` holds first and second, and
the texts are ``tokens`` (tokens, offsets, pool_start, pool_stop) or ``texts.json`` (prompts,
responses). JSON is a file such as ``{"fit": {"d": 8}, "run": {"seed": 0, "precision": "bf16"},
"encoder": "FOLDER", "backbone": {"steps": 500}}``; every part may be left out, and without
"backbone" only the head is trained. OUT gets model.safetensors and model.json, and with a backbone
the folder ``backbone``, which `encoder.load_encoder` takes. States of the unfinished run lie in
``OUT/states``.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pref_model.checkpoint import save_model
from pref_model.errors import BadSetting, ModelError
from pref_model.fit import accelerator_for, fit_reward_model
from pref_model.model import RewardModel
from pref_model.train_data import (
    TrainSettings,
    read_differences,
    read_labels,
    read_pairs,
    read_settings,
    read_texts,
    read_token_texts,
)
from pref_model.train_state import Checkpoints, remove_states, write_atomically


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write the model; returns the exit code (2 the request was wrong)."""
    parser = argparse.ArgumentParser(prog="python -m pref_model.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="folder of arrays")
    parser.add_argument("--config", type=Path, required=True, help="JSON file of settings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(given.config)
        accelerator = accelerator_for(settings.run.run.device)
        facts = train(given.data, settings, given.out)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if accelerator.is_main_process:
        print(json.dumps(facts))
    return 0


def train(data: Path, settings: TrainSettings, out: Path) -> dict[str, object]:
    """Fit what the settings ask for and write it under `out`; returns figures to print.

    Raises:
        ModelError: As the readers and the fits.
    """
    every = settings.checkpoint_every
    checkpoints = Checkpoints(out / "states", every) if every else None
    accelerator = accelerator_for(settings.run.run.device)
    facts: dict[str, object] = {"processes": accelerator.num_processes}
    if settings.backbone is None:
        labels = read_labels(data)
        model = fit_reward_model(
            read_differences(data),
            labels.train,
            labels.n_users,
            settings.fit,
            settings.run.run,
            labels.validation,
            checkpoints,
        )
    else:
        model = _train_backbone(data, settings, out, checkpoints, facts)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in save_model(model).items():
            write_atomically(out / name, content)
        remove_states(out / "states")
    accelerator.wait_for_everyone()
    last = model.history[-1]
    seen = [point.validation_nll for point in model.history if point.validation_nll is not None]
    best = min(seen, default=None)
    return facts | {"steps": last.step, "train_nll": last.train_nll, "validation_nll": best}


def _train_backbone(
    data: Path,
    settings: TrainSettings,
    out: Path,
    checkpoints: Checkpoints | None,
    facts: dict[str, object],
) -> RewardModel:
    # transformers takes seconds to import, which training the head alone should not pay.
    from pref_model.encoder import load_encoder
    from pref_model.encoder_spec import resolve_encoder
    from pref_model.train_backbone import fit_backbone

    if settings.backbone is None or not settings.encoder:
        raise BadSetting("settings: found a backbone but no 'encoder', expected its name or folder")
    labels = read_labels(data)
    encoder = load_encoder(resolve_encoder(**settings.encoder), device="cpu")
    texts = read_token_texts(data)
    if texts is None:
        texts = encoder.tokenize(*read_texts(data))
    first, second = read_pairs(data, texts.lengths.size)
    found = fit_backbone(
        encoder.backbone,
        texts,
        first,
        second,
        labels.train,
        labels.n_users,
        settings.fit,
        settings.backbone,
        settings.run,
        labels.validation,
        checkpoints,
    )
    accelerator = accelerator_for(settings.run.run.device)
    if accelerator.is_main_process:
        writing = out / ".writing-backbone"
        shutil.rmtree(writing, ignore_errors=True)
        encoder.backbone.network.save_pretrained(writing)
        encoder.tokenizer.save_pretrained(writing)
        shutil.rmtree(out / "backbone", ignore_errors=True)
        writing.rename(out / "backbone")
    start = found.model.history[0].validation_nll
    facts |= {"passes_an_epoch": found.passes_an_epoch, **found.passes._asdict()}
    facts |= {"start_validation_nll": start}
    return found.model


if __name__ == "__main__":
    sys.exit(main())
