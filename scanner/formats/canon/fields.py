"""Every field of an `adapter_config.json`, and what it does to the delta.

One table per PEFT type, from the dataclasses of PEFT 0.6 to 0.21 (`peft/tuners/*/config.py`) and
what trainers add of their own. A field has no effect on the delta; or it is understood exactly,
by the readers or the rest of this package; or only some of its values are, and any other leaves
the adapter uncovered. A field that is not in the table must be null, false or empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scanner.formats.canon.rules import DORA_REASON, Effect, Field, Only, is_empty, same
from scanner.formats.model import Uncovered
from scanner.formats.peft_config import PeftConfig

NONE, READ = Effect.NONE, Effect.READ

_TRANSPOSED = Only("which way round this type stores the delta of a transposed layer is not known")

EVERY_TYPE: dict[str, Field] = {
    "auto_mapping": NONE,
    "base_model_name_or_path": READ,
    "inference_mode": NONE,
    "peft_type": READ,
    "peft_version": NONE,
    "revision": NONE,
    "runtime_config": NONE,
    "task_type": NONE,
}
"""Fields of `PeftConfig`, which all types share."""

TRAINERS: dict[str, Field] = {
    # ms-swift
    "lora_dtype": NONE,
    "lora_plus_lr_ratio": NONE,
    "lorap_emb_lr": NONE,
    "lorap_lr_ratio": NONE,
    "swift_type": NONE,
    "use_merged_linear": Only("ms-swift's merged linear layers hold only some of the projections"),
    "use_qa_lora": Only("ms-swift's QA-LoRA pools the inputs"),
    # PEFT 0.1 and 0.2, and ms-swift
    "enable_lora": Only(
        "PEFT 0.2's MergedLinear: one layer holds updates of some of the fused projections; newer "
        "PEFT does not load it"
    ),
    "merge_weights": NONE,
    # Unsloth
    "lora_B_layout": READ,
}
"""What trainers write beside PEFT's own fields."""

TARGETS: dict[str, Field] = {
    "exclude_modules": READ,
    "layers_pattern": READ,
    "layers_to_transform": READ,
    "modules_to_save": READ,
    "target_modules": READ,
}
"""Which modules get layers (`canon.targets`)."""

LORA: dict[str, Field] = {
    **TARGETS,
    "alora_invocation_tokens": NONE,  # which tokens the delta acts on, not what it is
    "alpha_pattern": READ,
    "arrow_config": Only("Arrow: several adapters are routed per token", makes_settings=True),
    "bias": NONE,  # biases that were trained are tensors of their own
    "corda_config": NONE,  # as the other *_config: only with the initialisation of that name
    "ensure_weight_tying": Only("PEFT gives the output layer the input embedding's update too"),
    "eva_config": NONE,
    "fan_in_fan_out": NONE,  # factors are stored as those of a Linear layer either way
    "init_lora_weights": READ,
    "kasa_config": Only("KaSA: the base weights were truncated too", makes_settings=True),
    "layer_replication": Only(
        "layer_replication: blocks of the base are repeated, each with an update of its own"
    ),
    "loftq_config": NONE,
    "lora_alpha": READ,
    "lora_bias": NONE,  # as bias
    "lora_dropout": NONE,
    "lora_ga_config": NONE,
    "megatron_config": Only("Megatron's parallel layers: what they load is not known here"),
    "megatron_core": NONE,
    "monteclora_config": Only("MonteCLoRA: a sampler beside the factors", makes_settings=True),
    "qalora_group_size": READ,
    "r": READ,
    "rank_pattern": READ,
    "target_parameters": READ,
    "trainable_token_indices": Only(
        "replacement rows for some tokens: the delta needs the base's rows"
    ),
    "use_bdlora": READ,
    "use_dora": Only(DORA_REASON),
    "use_qalora": Only(
        "QALoRA: PEFT pools the inputs of layers that GPTQ quantised, and of no others"
    ),
    "use_rslora": READ,  # `canon.scales` says why SGLang's other factor does not matter
    "velora_config": NONE,  # changes what training keeps in memory
}

ADALORA: dict[str, Field] = {
    **{key: rule for key, rule in LORA.items() if key not in ("alpha_pattern", "use_rslora")},
    # The schedule of the budget, over before the adapter was saved.
    **dict.fromkeys(
        (
            "beta1", "beta2", "deltaT", "orth_reg_weight", "target_r", "tfinal", "tinit",
            "total_step",
        ),
        NONE,
    ),
    "alpha_pattern": NONE,  # SVDLinear takes lora_alpha, and init_r where LoRA takes r
    "init_r": READ,
    "use_rslora": NONE,
}  # fmt: skip

_LYCORIS: dict[str, Field] = {
    **TARGETS,
    "alpha": READ,
    "alpha_pattern": READ,
    "init_weights": READ,
    "module_dropout": NONE,
    "r": READ,
    "rank_dropout": NONE,
    "rank_pattern": READ,
    "use_effective_conv2d": NONE,  # convolutions in Tucker form have tensors of their own
}
_RANDOM_BASES: dict[str, Field] = {
    **TARGETS,
    "bias": NONE,
    "d_initial": NONE,
    "fan_in_fan_out": _TRANSPOSED,
    "init_weights": READ,
    "projection_prng_key": NONE,  # the projections themselves are read, or nothing is
    "r": READ,
    "save_projection": READ,
}
_FOURIER: dict[str, Field] = {
    **TARGETS,
    "bias": NONE,
    "fan_in_fan_out": _TRANSPOSED,
    "init_weights": READ,
    "n_frequency": READ,
    "n_frequency_pattern": READ,
    "random_loc_seed": READ,
    "scaling": READ,
}

BY_TYPE: dict[str, dict[str, Field]] = {
    "LORA": LORA,
    "ADALORA": ADALORA,
    "LOHA": _LYCORIS,
    "LOKR": {
        **_LYCORIS,
        "decompose_both": READ,
        "decompose_factor": READ,
        "rank_dropout_scale": NONE,
    },
    "VERA": {
        **_RANDOM_BASES,
        "init_vera_weights": Only("what it did before PEFT 0.11 is not known here", (True,)),
        "vera_dropout": NONE,
    },
    "PVERA": {
        **_RANDOM_BASES,
        "generator_seed": NONE,
        "pvera_dropout": NONE,
        "sample_at_inference": Only("PVeRA draws a new delta for every input"),
    },
    "RANDLORA": {
        **{key: rule for key, rule in _RANDOM_BASES.items() if key != "d_initial"},
        "randlora_alpha": READ,
        "randlora_dropout": NONE,
        "sparse": NONE,  # as projection_prng_key
        "very_sparse": NONE,
    },
    "VBLORA": {
        **TARGETS,
        "bias": NONE,
        "fan_in_fan_out": _TRANSPOSED,
        "init_logits_std": NONE,
        "init_vector_bank_bound": NONE,
        "num_vectors": READ,
        "r": READ,
        "save_only_topk_weights": READ,
        "topk": READ,
        "vblora_dropout": NONE,
        "vector_length": READ,
    },
    "UNILORA": {
        **TARGETS,
        "bias": NONE,
        "fan_in_fan_out": _TRANSPOSED,
        "init_theta_d_bound": NONE,
        "init_weights": READ,
        "proj_seed": NONE,  # the indices themselves are read, or nothing is
        "r": READ,
        "save_indices": READ,
        "theta_d_length": READ,
        "unilora_dropout": NONE,
    },
    "DELORA": {
        **TARGETS,
        "bias": NONE,
        "delora_lambda": NONE,  # the trained one is in the file
        "init_weights": READ,
        "lambda_pattern": NONE,
        "module_dropout": NONE,
        "r": READ,
        "rank_pattern": READ,
    },
    "GRALORA": {
        **TARGETS,
        "alpha": READ,
        "bias": NONE,
        "fan_in_fan_out": _TRANSPOSED,
        "gralora_dropout": NONE,
        "gralora_k": READ,
        "hybrid_r": READ,
        "init_weights": READ,
        "r": READ,
    },
    "MISS": {
        **TARGETS,
        "bias": NONE,
        "init_weights": READ,
        "mini_r": READ,
        "miss_dropout": NONE,
        "r": READ,
    },
    "C3A": {
        **TARGETS,
        "bias": NONE,
        "block_size": READ,
        "block_size_pattern": READ,
        "init_weights": READ,
    },
    "SHIRA": {
        **TARGETS,
        "fan_in_fan_out": _TRANSPOSED,
        "init_weights": READ,
        "mask_type": NONE,  # the places themselves are read
        "r": READ,
        "random_seed": NONE,
    },
    "FOURIERFT": _FOURIER,
    "WAVEFT": {
        **_FOURIER,
        "proportional_parameters": NONE,  # decides how many coefficients there are: counted
        "use_idwt": READ,
        "wavelet_family": READ,
    },
    "SUPERTUNING": {
        **TARGETS,
        "init_weights": READ,
        "lora_alpha": READ,
        "lora_dropout": NONE,
        "r": READ,
        "save_precomputed_indices": READ,
        "select_top": NONE,  # the places themselves are read
        "selection_direction": NONE,  # as select_top, in versions between releases
        "sparsity": NONE,
    },
}
"""peft_type -> its fields. Types without a row are not recovered at all."""


_OF_OTHER_TYPES: dict[str, Field] = {key: NONE for rules in BY_TYPE.values() for key in rules}
"""Fields that only other types have: PEFT ignores them, or refuses the config."""


def rules_of(peft_type: str | None) -> Mapping[str, Field]:
    """The fields a config of a type may have; LoRA's for one that names none."""
    own = BY_TYPE.get(peft_type or "LORA", {})
    return {**_OF_OTHER_TYPES, **TRAINERS, **EVERY_TYPE, **own}


def departing_fields(config: PeftConfig) -> Iterator[Uncovered]:
    """The fields of a config whose values leave the delta uncertain."""
    rules = rules_of(config.peft_type)
    for key, value in config.raw.items():
        rule = rules.get(key)
        sets = isinstance(rule, Only) and rule.makes_settings and isinstance(value, dict)
        if rule in (NONE, READ) or (is_empty(value) and not sets):
            continue
        if isinstance(rule, Only):
            if not any(same(value, allowed) for allowed in rule.values):
                yield config_entry(key, rule.reason)
        else:
            yield config_entry(key, f"{str(value)[:40]!r} in a field that is not known here")


def config_entry(key: str, reason: str) -> Uncovered:
    """What is uncovered because of one field of the config."""
    return Uncovered(f"adapter_config.json: {key}", reason)
