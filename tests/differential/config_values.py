"""Values that fields of an adapter_config.json may take, by PEFT type and for every type."""

from __future__ import annotations

from typing import Any

Field = tuple[str, Any]

_PATTERNS = (
    "q_proj", "o_proj", "self_attn.o_proj", "layers.0", "layers.0.self_attn.o_proj", ".*",
    ".*_proj",  r"layers\.0\..*", "^model.layers.1.self_attn.o_proj",
    "model.layers.1.self_attn.o_proj",
    r".*\.1\..*", "(?i)O_PROJ", "(o_proj){e<=1}", "p_proj", "[[a-z]]_proj", r"\p{L}_proj",
    "(?:o_proj|q_proj)", "o_proj$", "o_proj|q_proj", "", "o_pro", "_proj", "(?r)o_proj", r"\w+",
    "(?V1)o_proj", "(?b)(?:o_prox){e}", "o_proj ", "(?<=attn.)o_proj", "[q-o]_proj", "O_proj",
)  # fmt: skip


def _patterns(field: str, values: tuple[Any, ...]) -> list[Field]:
    single = [(field, {pattern: value}) for pattern in _PATTERNS for value in values]
    several: list[Field] = [
        (field, {"o_proj": values[0], "self_attn.o_proj": values[-1]}),
        (field, {"self_attn.o_proj": values[-1], ".*": values[0]}),
        (field, {".*": values[0], "q_proj": values[-1]}),
        (field, None),
        (field, []),
        (field, {}),
    ]
    return single + several


def _each(field: str, *values: Any) -> list[Field]:
    return [(field, value) for value in values]


_NUMBERS: tuple[Any, ...] = (None, 0, 1, 2, 4, 8, -1, -12, 0.5, 1.0, 16.0, "4", True, [])
_SWITCH: tuple[Any, ...] = (None, True, False, 0, 1, "true", "false", "")

_TARGETS = [
    *_each(
        "target_modules",
        None, [], ["q_proj"], ["o_proj"], ["q_proj", "o_proj"], ["layers.0.self_attn.o_proj"],
        ["model.layers.0.self_attn.o_proj"], ["self_attn.q_proj"], ["x"], "q_proj", ".*q_proj",
        ".*_proj", "all-linear", "ALL-LINEAR", "all", r".*layers\.0.*", ["_proj"], ["proj"],
        ["embed_tokens"], ["lm_head"], ["o_proj", "lm_head"], ["q_proj", "k_proj", "v_proj",
        "o_proj", "up_proj", "down_proj", "gate_proj"], ["q_proj", "q_proj"], {"q_proj": 1}, "",
        ["Q_PROJ"], ["all-linear"], [".*q_proj"], ["self_attn"], ["layers"], ["base_layer"],
    ),
    *_each("exclude_modules", None, [], ["q_proj"], ["o_proj"], "o_proj", ".*o_proj", ["x"],
           r".*layers\.0.*", ["self_attn"], ["layers.0.self_attn.o_proj"], ""),
    *_each("layers_to_transform", None, [], 0, 1, [0], [1], [0, 1], [2], -1, "0", [[0]]),
    *_each("layers_pattern", None, "", [], "layers", ["layers"], "h", ["x"], ["layers", "h"], "x"),
    *_each("target_parameters", None, [], ["q_proj.weight"], ["self_attn.q_proj.weight"],
           ["mlp.experts.gate_up_proj"], ["weight"], ["o_proj.weight"], ["x"]),
    *_each("modules_to_save", None, [], ["lm_head"], ["o_proj"], ["q_proj"], ["norm"], ["x"],
           "lm_head", ["embed_tokens"]),
    *_each("trainable_token_indices", None, [], [0], [0, 1], {"embed_tokens": [0, 1]}, {}),
    *_each("layer_replication", None, [], [[0, 2]], [[0, 1], [0, 2]], [[0, 2], [0, 2]], [[1, 2]]),
]  # fmt: skip

_COMMON: list[Field] = [
    *_each("peft_type", None, "", "LORA", "lora", "Lora", "ADALORA", "LOHA", "LOKR", "VERA", "X",
           "IA3", "OFT", "MISS", "XLORA", "LORA "),
    *_each("task_type", None, "", "CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION", "X",
           "SEQ_2_SEQ_LM"),
    *_each("inference_mode", *_SWITCH),
    *_each("auto_mapping", None, {}, {"base_model_class": "X"}),
    *_each("peft_version", None, "0.6.0", "0.13.2", "0.17.0", "0.18.1", "99.0", ""),
    *_each("revision", None, "main", "x"),
    *_each("bias", None, "none", "all", "lora_only", "x", ""),
    *_each("x_unknown", None, False, 1, {}, "y"),
    *_each("fan_in_fan_out", *_SWITCH),
    *_each("base_model_name_or_path", None, "", "tests/tiny-llama", "other/model"),
    *_TARGETS,
]  # fmt: skip

_LORA: list[Field] = [
    *_each("r", *_NUMBERS),
    *_each("lora_alpha", *_NUMBERS),
    *_each("lora_dropout", None, 0.0, 0.5, 1.0, "x"),
    *_each("use_rslora", *_SWITCH),
    *_each("use_dora", *_SWITCH),
    *_each("lora_bias", *_SWITCH),
    *_each("use_qalora", *_SWITCH),
    *_each("qalora_group_size", None, 1, 8, 16, 24, 2),
    *_each("use_bdlora", None, {}, {"nblocks": 2}, True, {"target_modules_bd_a": ["o_proj"],
           "target_modules_bd_b": ["q_proj"], "nblocks": 2, "match_strict": True}),
    *_each("init_lora_weights", None, True, False, "gaussian", "pissa", "pissa_niter_4", "olora",
           "eva", "loftq", "orthogonal", "corda", "lora_ga", "mica", "PiSSA", "x", ""),
    *_each("megatron_config", None, {}, {"x": 1}),
    *_each("megatron_core", None, "megatron.core", "x"),
    *_each("loftq_config", None, {}, {"loftq_bits": 4}),
    *_each("eva_config", None, {}, {"rho": 2.0}),
    *_each("corda_config", None, {}, {"corda_method": "ipm"}),
    *_each("kasa_config", None, {}, {"beta": 0.1, "gamma": 0.1}, {"x": 1}),
    *_each("arrow_config", None, {}, {"top_k": 1}),
    *_each("lora_ga_config", None, {}, {"direction": "ArB2r"}),
    *_each("monteclora_config", None, {}, {"x": 1}),
    *_each("velora_config", None, {}, {"x": 1}),
    *_each("alora_invocation_tokens", None, [], [1, 2]),
    *_each("ensure_weight_tying", *_SWITCH),
    *_each("lora_B_layout", None, "x", "expert_major"),
    *_each("enable_lora", None, [True], [True, False, True]),
    *_each("merge_weights", *_SWITCH),
    *_each("alpha", *_NUMBERS),
    *_each("runtime_config", None, {}, {"ephemeral_gpu_offload": True}),
    *_each("tie_lora_weights", *_SWITCH),
    *_each("swift_type", None, "LORA", "x"),
    *_each("lora_plus_scale", 1.0, 2.0),
    *_patterns("rank_pattern", (2, 4, 6)),
    *_patterns("alpha_pattern", (3, -5, 0, 12, 2.5)),
]  # fmt: skip

_LYCORIS: list[Field] = [
    *_each("r", *_NUMBERS),
    *_each("alpha", *_NUMBERS),
    *_each("rank_dropout", None, 0.0, 0.5),
    *_each("module_dropout", None, 0.0, 0.5, 1.0),
    *_each("use_effective_conv2d", *_SWITCH),
    *_each("init_weights", None, True, False, "lycoris", "x"),
    *_each("decompose_both", *_SWITCH),
    *_each("decompose_factor", None, -1, 1, 2, 3, 4, 8, 24),
    *_each("rank_dropout_scale", *_SWITCH),
    *_each("use_rslora", *_SWITCH),
    *_each("lora_alpha", *_NUMBERS),
    *_patterns("rank_pattern", (2, 3)),
    *_patterns("alpha_pattern", (3, -5, 0)),
]

_VERA: list[Field] = [
    *_each("r", *_NUMBERS),
    *_each("save_projection", *_SWITCH),
    *_each("projection_prng_key", None, 0, 1, 42, -1, 7.0),
    *_each("d_initial", None, 0.0, 0.1, 2.0),
    *_each("init_weights", *_SWITCH),
    *_each("vera_dropout", None, 0.0, 0.5),
    *_each("pvera_dropout", None, 0.0, 0.5),
    *_each("sample_at_inference", *_SWITCH, {"default": True}),
]

_SEEDED: list[Field] = [
    *_each("random_loc_seed", None, 0, 1, 777, 778, 7.0, -1, "777"),
    *_each("n_frequency", *_NUMBERS, 30, 90),
    *_each("scaling", None, 0, 1, 7.0, -7.0, "7", 150.0),
    *_each("alpha", *_NUMBERS),
    *_each("use_idwt", *_SWITCH),
    *_each("wavelet_family", None, "db1", "haar", "Haar", "db4", "x"),
    *_each("proportional_parameters", *_SWITCH),
    *_each("init_weights", *_SWITCH),
    *_each("ifft2_norm", None, "backward", "forward", "ortho"),
    *_patterns("n_frequency_pattern", (20, 30)),
]

CONFIG_VALUES: dict[str, list[Field]] = {
    "LORA": [*_LORA, *_TARGETS],
    "ADALORA": [
        *_LORA,
        *_each("init_r", *_NUMBERS, 12),
        *_each("target_r", *_NUMBERS),
        *_each("tinit", 0, 200), *_each("total_step", None, 1, 10), *_each("beta1", 0.5),
        *_each("orth_reg_weight", 0.0, 0.5),
        *_each("rank_pattern", None, {}, {"model.layers.0.self_attn.q_proj.lora_E":
               [True, False, True, True]}, {"model.layers.0.self_attn.q_proj.lora_E": [True] * 4},
               {"model.layers.1.mlp.up_proj.lora_E": [False] * 4}, {"x": [True]}),
    ],
    "LOHA": _LYCORIS,
    "LOKR": _LYCORIS,
    "VERA": _VERA,
    "PVERA": _VERA,
    "RANDLORA": [*_VERA, *_each("randlora_alpha", *_NUMBERS), *_each("sparse", *_SWITCH),
                 *_each("very_sparse", *_SWITCH), *_each("randlora_dropout", 0.5)],
    "C3A": [*_each("block_size", *_NUMBERS, 24, 3), *_each("init_weights", *_SWITCH, "gaussian"),
            *_patterns("block_size_pattern", (4, 8))],
    "SHIRA": [*_each("r", *_NUMBERS), *_each("random_seed", None, 1, 3),
              *_each("mask_type", None, "random", "x"), *_each("init_weights", *_SWITCH)],
    "FOURIERFT": _SEEDED,
    "WAVEFT": _SEEDED,
    "DELORA": [*_each("r", *_NUMBERS), *_each("delora_lambda", None, 1, 15, -15),
               *_each("init_weights", *_SWITCH), *_each("module_dropout", 0.5),
               *_patterns("rank_pattern", (2, 3)), *_patterns("lambda_pattern", (1, 20))],
    "GRALORA": [*_each("r", *_NUMBERS), *_each("alpha", *_NUMBERS), *_each("hybrid_r", *_NUMBERS),
                *_each("gralora_k", None, 1, 2, 3, 4, 8), *_each("init_weights", *_SWITCH),
                *_each("gralora_dropout", 0.5)],
    "VBLORA": [*_each("r", *_NUMBERS), *_each("num_vectors", None, 5, 10, 256),
               *_each("vector_length", None, 4, 8, 24), *_each("topk", None, 1, 2, 3, 10, 0, -1),
               *_each("save_only_topk_weights", *_SWITCH),
               *_each("init_vector_bank_bound", 0.02, 1.0), *_each("init_logits_std", 0.1)],
    "MISS": [*_each("r", *_NUMBERS, 5), *_each("mini_r", *_NUMBERS), *_each("miss_dropout", 0.5),
             *_each("init_weights", *_SWITCH, "bat", "mini", "Bat", "x")],
    "UNILORA": [*_each("r", *_NUMBERS), *_each("theta_d_length", None, 10, 50, 100),
                *_each("save_indices", *_SWITCH), *_each("proj_seed", None, 0, 42),
                *_each("init_theta_d_bound", 0.5), *_each("init_weights", *_SWITCH)],
    "SUPERTUNING": [*_each("r", *_NUMBERS), *_each("lora_alpha", *_NUMBERS),
                    *_each("sparsity", None, 0.5, 0.9, 1.0, 0.0), *_each("use_rslora", *_SWITCH),
                    *_each("init_weights", *_SWITCH), *_each("alpha", *_NUMBERS)],
    "MLX": [*_each("num_layers", None, 0, 1, 2, 16, -1, "1"), *_each("lora_layers", 0, 1, 2),
            *_each("fine_tune_type", None, "lora", "dora", "full", "LORA"),
            *_each("peft_type", "LORA"), *_each("lora_parameters", None, {}, {"rank": 4}),
            *_each("scale", 2.0), *_each("use_dora", True)],
}  # fmt: skip
"""Type, the first word of a kind -> (field, value)."""

NAMED_FIELDS: list[Field] = [
    *_COMMON,
    *(field for fields in CONFIG_VALUES.values() for field in fields),
]
"""Values of fields of every type, also where the type has no such field."""

EVERY_FIELD: list[Any] = [
    None, True, False, 0, 1, 2, 4, 8, -1, 0.5, 12.0, "", "x", "none", "4", [], ["q_proj"], [0],
    [True], {}, {"q_proj": 2}, {"o_proj": -3},
]  # fmt: skip
"""What any field may be changed to."""
