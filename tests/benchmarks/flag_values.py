"""For every flag of every recipe another valid value than the one that the law of the cache starts from, at tiny sizes.

A value that begins with `@` is a folder, or a file in a folder, that `tests.benchmarks.cache_law` writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from infra.config import ConfigError

Flags = dict[str, Any]


@dataclass(frozen=True)
class Other:
    """Another value of a flag."""

    value: Any
    beside: Flags = field(default_factory=dict)
    """Flags that both runs have, because the value is refused without them."""
    along: Flags = field(default_factory=dict)
    """Flags that change with it, because no run can differ in this one alone."""


@dataclass(frozen=True)
class Without:
    """A flag that has no other value here."""

    reason: str


GPU = Without("needs a machine with a GPU")
SERVER = Without("needs a server to log to, and is no part of a key")
OFFLINE: Flags = {
    "steps": 2,
    "batch": 4,
    "workers": 1,
    "gpus": 0.0,
    "encode_workers": 1,
    "encode_gpus": 0.0,
    "micro_batch": 2,
    "precision": "fp32",
    "side": 32,
    "zero": "0",
}
PICTURES: Flags = OFFLINE | {"weights": "@sd15", "pairs": "@pictures"}
CLIPS: Flags = OFFLINE | {"weights": "@wan", "pairs": "@clips", "frames": (5,)}
ALIGN: Flags = {name: value for name, value in OFFLINE.items() if name != "side"} | {
    "render_workers": 1,
    "render_gpus": 0.0,
    "judge_workers": 1,
    "judge_gpus": 0.0,
    "policy_samples": 2,
    "held_out": 0.3,
    "prompts": "@lists/prompts.txt",
    "jury": "@lists/jury.yaml",
    "evaluation_jury": "@lists/judges.yaml",
}
ONLINE: Flags = {name: value for name, value in OFFLINE.items() if name != "batch"} | {
    "weights": "@sd3",
    "pairs": "@pictures",
    "prompts": "@lists/prompts.txt",
    "reward": "task_tokens",
    "reward_steps": 2,
    "reward_batch": 2,
    "prompts_per_round": 2,
}

BASES: dict[str, Flags] = {
    "miniature": {
        "prompts": 12,
        "evaluation": 6,
        "policy_samples": 2,
        "steps": 2,
        "batch": 4,
        "reward_steps": 2,
        "held_out": 0.3,
        "zero": "0",
        "tune_workers": 1,
        "workers": 1,
    },
    "lab": {
        "methods": ("dpo", "sft"),
        "noises": (0.0,),
        "seeds": 1,
        "candidates": 1,
        "steps": 2,
        "batch": 4,
        "prompts": 12,
        "tuning": 6,
        "evaluation": 6,
        "workers": 1,
    },
    "zoo": {"captions": 6, "generator_steps": 40, "juror_steps": 2},
    "vipo_image": PICTURES,
    "arenapo": PICTURES,
    "vipo_pickapic": PICTURES,
    "flow_dpo_video": CLIPS | {"dimensions": ("VQ", "TA")},
    "vipo_video": CLIPS,
    "reward_model": OFFLINE | {"weights": "@sd3", "pairs": "@pictures", "held_out": 0.3},
    "tapo": ONLINE,
    "step_grpo": ONLINE | {"sampling_steps": 3, "starts": 1},
    "flow_grpo": ONLINE | {"samples": 2},
    "spo": ONLINE,
    "lpo": ONLINE,
    "align_image": ALIGN | {"roster": "@lists/pictures.yaml"},
    "align_video": ALIGN | {"roster": "@lists/clips.yaml", "frames": (5,)},
}
"""Where the law starts from, by recipe."""

SHARED: dict[str, Other | Without] = {
    "revision": Without("of a repository on the hub only"),
    "pairs_format": Without("other formats are other files, which --pairs changes already"),
    "subset": Without("the pairs at hand have no subsets, which test_offline's have"),
    "exclude_subset": Without("the pairs at hand have no subsets, which test_offline's have"),
    "steps": Other(3),
    "epochs": Other(1.5),
    "batch": Other(2),
    "learning_rate": Other(1e-5),
    "rank": Other(8, beside={"adapter": "lora"}),
    "side": Other(64),
    "max_error_share": Other(0.5),
    "workers": Other(2),
    "gpus": GPU,
    "encode_workers": Other(2),
    "encode_gpus": GPU,
    "zero": Other("1"),
    "offload": Other("optimizer", beside={"zero": "1"}),
    "micro_batch": Other(1),
    "precision": Other("bf16"),
    "base_precision": Other("nf4", beside={"adapter": "lora"}),
    "draws": Other(2),
    "ema": Other(0.5),
    "preview_texts": Other(("a castle",)),
    "preview_every": Other(1, beside={"preview_texts": ("a castle",)}),
    "comfyui": Other(True, beside={"adapter": "lora"}),
    "wandb": SERVER,
    "mlflow": SERVER,
    "seed": Other(1),
}
OF_PICTURES: dict[str, Other | Without] = SHARED | {
    "weights": Other("@sd15-other"),
    "pairs": Other("@pictures-other"),
    "pairs_map": Other(("words=prompt",), along={"pairs": "@pictures-renamed"}),
    "model": Other("sdxl", along={"weights": "@sdxl"}),
    "adapter": Other("lora"),
    "alpha": Other("auto"),
    "beta": Other(100.0),
}
OF_CLIPS: dict[str, Other | Without] = SHARED | {
    "weights": Other("@wan-other"),
    "pairs": Other("@clips-other"),
    "pairs_map": Other(("words=prompt",), along={"pairs": "@clips-renamed"}),
    "model": Other("wan2.1-14b"),
    "beta": Other(100.0),
    "frames": Other((9,)),
}
OF_PAIRS = ("side", "subset", "exclude_subset")
OF_ONLINE: dict[str, Other | Without] = {
    name: SHARED[name] for name in SHARED if name not in ("subset", "exclude_subset", "epochs", "batch")
} | {
    "weights": Other("@sd3-other"),
    "pairs": Other("@pictures-other"),
    "prompts": Other("@lists/more.txt"),
    "prompt_column": Other("words", beside={"prompts": "@lists/table.csv"}),
    "model": Other("wan2.1-1.3b", along={"weights": "@wan", "pairs": "@clips", "reward": "pixels"}),
    "reward": Other("lrm"),
    "reward_weights": Without("a folder of a trained reward model, which only a run makes"),
    "reward_steps": Other(3),
    "reward_batch": Other(3),
    "prompts_per_round": Other(4),
    "rollout_prompts": Other(1),
    "rank": Other(8),
    "steps": Other(4),
    "base_precision": Other("nf4"),
    "draws": Without("samples of online training are new in every round, so nothing can be cached"),
    "comfyui": Other(True),
}
NODES = Without("needs nodes with labels, and is no part of a key")
OF_ALIGN: dict[str, Other | Without] = {name: SHARED[name] for name in SHARED if name not in OF_PAIRS} | {
    "prompts": Other("@lists/more.txt"),
    "jury": Other("@lists/both.yaml"),
    "prompt_column": Other("words", beside={"prompts": "@lists/table.csv"}),
    "task_column": Other("kind", beside={"prompts": "@lists/table.csv"}),
    "held_out": Other(0.5),
    "policy": Other("second"),
    "evaluation_jury": Other("@lists/pointwise.yaml"),
    "scorers": Without("the scorers that are shipped are models of the Hub"),
    "policy_samples": Other(3),
    "other_samples": Other(2),
    "other_pairs": Other(1),
    "own_pairs_only": Other(True),
    "ranking": Without("the jurors at hand compare two pictures"),
    "quota": Other(("second=4",)),
    "first_frames": Without("needs a generator of pictures to clips, which test_align has"),
    "animate": Without("needs a generator of pictures to clips, which test_align has"),
    "dimensions": Without("the jurors at hand answer for no dimension but the overall one"),
    "render_workers": Other(2),
    "render_gpus": GPU,
    "render_on": NODES,
    "judge_workers": Other(2),
    "judge_gpus": GPU,
    "judge_on": NODES,
    "evaluation_seed": Other(1),
    "method": Other("sft"),
    "beta": Other(100.0),
    "alpha": Other("8"),
    "margin": Other("arena"),
    "scale": Other(0.3, beside={"margin": "arena"}),
    "adapter": Other("full"),
    "rank": Other(8),
    "caption_dropout": Other(0.5),
    "side": Other(64),
    "comfyui": Other(True),
}

OTHERS: dict[str, dict[str, Other | Without]] = {
    "miniature": {
        "prompts": Other(13),
        "evaluation": Other(7),
        "steer": Other("best_of_n"),
        "candidates": Other(3, beside={"steer": "best_of_n"}),
        "reward_scale": Other(50.0, beside={"steer": "flow_nrg"}),
        "policy_samples": Other(3),
        "sources": Other(("policy", "late")),
        "other_pairs": Other(1),
        "roster": Other(("policy", "late", "middle")),
        "jury": Other(("idefics3-fine",)),
        "juror_engine": Without("needs vLLM"),
        "seed": Other(1),
        "guidance": Other(2.0),
        "online": Other("tapo"),
        "adapter": Other("lora"),
        "zero": Other("1"),
        "beta": Other(100.0),
        "steps": Other(3),
        "batch": Other(3),
        "learning_rate": Other(1e-4),
        "reward_steps": Other(3),
        "held_out": Other(0.5),
        "workers": Other(2),
        "tune_workers": Other(2),
        "gpus": GPU,
    },
    "lab": {
        "quick": Other(True),
        "methods": Other(("dpo", "rwr")),
        "noises": Other((0.0, 0.3)),
        "seeds": Other(2),
        "candidates": Other(2),
        "steps": Other(3),
        "batch": Other(3),
        "prompts": Other(13),
        "tuning": Other(7),
        "evaluation": Other(7),
        "seed": Other(1),
        "workers": Other(2),
    },
    "zoo": {"captions": Other(7), "generator_steps": Other(41), "juror_steps": Other(3)},
    "vipo_image": OF_PICTURES | {"sft": Other(False), "guidance": Other(2.0)},
    "arenapo": OF_PICTURES
    | {
        "form": Other("dspo"),
        "gap": Other(2.0),
        "scale": Other(0.3),
        "dspo_sums": Other(True, beside={"form": "dspo"}),
        "rate": Other("paper"),
        "optimizer": Other("adafactor"),
        "flips": Other(False),
    },
    "vipo_pickapic": OF_PICTURES
    | {
        "flips": Other(False),
        "rank": Without("all weights are trained"),
        "base_precision": Without("all weights are trained"),
        "comfyui": Without("all weights are trained"),
    },
    "flow_dpo_video": OF_CLIPS
    | {
        "method": Other("sft"),
        "dimensions": Other(("VQ=2", "TA")),
        "overall": Other(True),
        "scores": Without("the pairs at hand have no scores, which test_offline's have"),
        "rank": Other(8),
        "comfyui": Other(True),
        "base_precision": Other("nf4"),
    },
    "reward_model": {name: OF_ONLINE[name] for name in ("weights", "revision", "pairs", "pairs_format", "side", "steps")}
    | {name: SHARED[name] for name in ("batch", "learning_rate", "max_error_share", "workers", "gpus", "encode_workers")}
    | {name: SHARED[name] for name in ("encode_gpus", "zero", "micro_batch", "precision", "seed")}
    | {
        "reward": Other("lrm"),
        "model": Other("wan2.1-1.3b", along={"weights": "@wan", "pairs": "@clips"}),
        "enhancement": Other("none"),
        "readout": Other("similarity"),
        "projections": Other("shared"),
        "backbone": Other("random"),
        "epochs": Other(1.5, along={"steps": None}),
        "noise": Other("independent"),
        "clean": Other(True),
        "held_out": Other(0.5),
    },
    "tapo": OF_ONLINE
    | {
        "stochastic_steps": Other(4),
        "first_step": Other(0),
        "candidates": Other(2),
        "beta": Other(100.0),
        "noise": Other(0.5),
    },
    "step_grpo": OF_ONLINE
    | {
        "candidates": Other(2),
        "starts": Other(2),
        "sampling_steps": Other(4),
        "clip": Other(1e-3),
        "kl": Other(0.0),
    },
    "flow_grpo": OF_ONLINE
    | {
        "form": Other("dance", beside={"steps": 4}),
        "samples": Other(4),
        "clip": Other(1e-3),
        "kl": Other(0.5),
    },
    "spo": OF_ONLINE | {"candidates": Other(4), "first_step": Other(2), "threshold": Other(0.1), "beta": Other(100.0)},
    "lpo": OF_ONLINE | {"candidates": Other(2), "thresholds": Other((0.1, 0.2)), "beta": Other(100.0)},
    "align_image": OF_ALIGN | {"architecture": Other("sd15"), "roster": Other("@lists/pictures-slow.yaml")},
    "align_video": OF_ALIGN
    | {"architecture": Other("wan2.1-1.3b"), "frames": Other((1,)), "roster": Other("@lists/clips-slow.yaml")},
    "vipo_video": OF_CLIPS | {"alpha": Other("8"), "adapter": Other("lora")},
}


def other_value(recipe: str, flag: str) -> Other | Without:
    """Another value of a recipe's flag; raises ConfigError where none is stated."""
    try:
        return OTHERS[recipe][flag]
    except KeyError:
        raise ConfigError(f"recipe {recipe}: no other value of {flag} is stated; add one to OTHERS") from None
