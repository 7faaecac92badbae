"""Adapters that a loader once loaded otherwise than they were read, as the search printed them."""

from __future__ import annotations

from tests.differential.mutations import Case, Mutation

_UNPREFIXED = Mutation("rename", 0, ("all", ("base_model.model.", "")))

REGRESSIONS: tuple[Case, ...] = (
    Case("VBLORA top-k", (Mutation("reshape", 30, "a row more"),)),
    Case("VBLORA top-k of 0.13", (Mutation("reshape", 34, "stacked"),)),
    Case("VBLORA top-k", (Mutation("scale", 0, ("all", -1.0)),)),
    Case("LOHA of 0.13", (Mutation("scale", 1, ("all", 0.001)),)),
    Case("LOHA", (Mutation("scale", 40, ("module", 0.001)),) * 2),
    Case("LORA", (_UNPREFIXED,)),
    Case("ADALORA", (_UNPREFIXED,)),
    Case("LOHA patterns", (_UNPREFIXED,)),
    Case("GRALORA", (_UNPREFIXED,)),
    Case("VERA", (_UNPREFIXED,)),
    Case("FOURIERFT", (_UNPREFIXED,)),
    Case("LORA regex of 0.13", (_UNPREFIXED,)),
    Case("LORA regex of 0.13", (Mutation("move", 34, "up_proj"),)),
    Case("LORA experts", (Mutation("rename", 6, ("all", ("base_model.model.", "base_model."))),)),
    Case(
        "GRALORA",
        (Mutation("rename", 6, ("module", ("base_model.model.", "base_model.model._orig_mod."))),),
    ),
    Case("VERA of 0.13", (Mutation("retype", 34, ("all", "float16")),)),
    Case("LOHA of 0.13", (Mutation("set field", 0, ("alpha_pattern", {"o_proj|q_proj": 0})),)),
    Case("LORA", (Mutation("set field", 0, ("alpha_pattern", {"o_proj": 0})),)),
    Case("LORA all-linear", (Mutation("set field", 1, ("kasa_config", {})),)),
    Case("SUPERTUNING with a rank", (Mutation("drop", 18, "tensor"),)),
    Case("VBLORA", (Mutation("scale", 32, ("module", 0.0)),)),
    Case("LORA false", (Mutation("set field", 35, ("target_parameters", ["q_proj.weight"])),)),
    Case("SHIRA", (Mutation("roll", 0, "part"),)),
    Case("SHIRA", (Mutation("delete field", 10, None),)),
    Case("RANDLORA", (Mutation("scale", 1, ("all", 0.001)),)),
    Case("VERA of 0.13", (Mutation("roll", 0, "part"),)),
    Case("VERA", (Mutation("copy to", 18, "k_proj"),)),
    Case("GRALORA", (Mutation("copy to", 16, "lm_head"),)),
    Case("LORA one module", (Mutation("set field", 28, ("use_qalora", 1)),)),
    Case("LORA gaussian", (Mutation("set field", 31, ("use_qalora", "false")),)),
    Case("SUPERTUNING with a rank", (Mutation("drop", 30, "module"),) * 2),
    Case("FOURIERFT of 0.13", (Mutation("drop", 24, "tensor"),) * 2),
    Case("MLX", (Mutation("copy to", 36, "c_proj"),)),
    Case("MLX", (Mutation("move", 1, "o_proj"),)),
    Case("MLX", (Mutation("rename", 5, ("all", ("layers.1.", "layers.\u0661."))),)),
    Case("MLX", (Mutation("rename", 36, ("module", (".self_attn.", "..self_attn."))),)),
)
