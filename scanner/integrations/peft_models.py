"""A PEFT model in memory -> its adapters, read by the same code as saved ones.

What PEFT would write to disk is what is read: the same tensor names, the same configuration.
So a scan of a model in training gives the numbers a scan of its next checkpoint gives.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from scanner.errors import UnreadableFileError, UsageError
from scanner.formats.jsonfile import parse_object
from scanner.formats.model import Adapter
from scanner.formats.opening import AdapterParts, Shapes, ShapesOf, adapter_from
from scanner.formats.peft_config import parse_config
from scanner.formats.stores.memory import TensorsInMemory

try:
    from accelerate.utils import extract_model_from_parallel
    from peft import PeftModel, get_peft_model_state_dict
except ImportError as error:
    raise ImportError(
        f"{error}; adapters in memory need PEFT: pip install 'adapter-scanner[build]'"
    ) from None

_NATIVE_PREFIX = "base_model.model."
"""What transformers writes before the names of adapters it holds without PEFT's wrapper."""


def _place_in_file(item: tuple[str, Any]) -> tuple[int, bool, str]:
    """Sorts tensors as safetensors does: by dtype, the wide ones first, then by name."""
    name, tensor = item
    return -tensor.element_size(), not tensor.is_floating_point(), name


class PeftAdapters:
    """The adapters of one model.

    Args:
        model: A `peft.PeftModel`, or a model with adapters injected without PEFT's wrapper
            (`inject_adapter_in_model`, transformers' `add_adapter`); it may be wrapped for
            parallel training or compiled.

    Raises:
        UsageError: If the model has no adapter.
    """

    def __init__(self, model: Any) -> None:
        self._model = extract_model_from_parallel(model, keep_torch_compile=False)
        configs = getattr(self._model, "peft_config", None)
        if not isinstance(configs, dict) or not configs:
            raise UsageError(
                f"{type(self._model).__name__} is no PEFT model: it has no adapter to scan",
                todo="wrap it with peft.get_peft_model before training; a full fine-tune is "
                "scanned once it is saved, with --base-weights",
            )
        self._with_embeddings: dict[str, bool] = {}

    @property
    def names(self) -> list[str]:
        """The adapters' names, in the order they were added."""
        return list(self._model.peft_config)

    def are_of(self, model: Any) -> bool:
        """Whether these are the adapters of this model, however it is wrapped."""
        return extract_model_from_parallel(model, keep_torch_compile=False) is self._model

    @property
    def in_training(self) -> list[str]:
        """The adapters that training changes; the active ones if it changes none.

        A frozen adapter is no outcome of the training: TRL keeps a copy named ``ref`` of the
        adapter that it started from.
        """
        trained = set()
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:  # ...lora_A.NAME.weight, lora_embedding_A.NAME
                trained.update(name.split(".")[-3:])
        return [name for name in self.names if name in trained] or self._active()

    def _active(self) -> list[str]:
        active = self._model.active_adapters
        found = active() if callable(active) else active
        return [name for name in self.names if name in found]

    def open(
        self,
        name: str = "default",
        *,
        target: str | None = None,
        shapes: Shapes | ShapesOf | None = None,
    ) -> Adapter:
        """One adapter as it is now. Its updates show what the model holds when they are read.

        Args:
            name: Which one.
            target: What reports call it; its name if not given.
            shapes: As in `scanner.formats.opening.open_adapter`.

        Raises:
            UsageError: If the model has no adapter of this name.
            TargetError: If it cannot be read.
        """
        if name not in self._model.peft_config:
            known = ", ".join(map(repr, self.names))
            raise UsageError(f"the model has no adapter {name!r}", todo=f"it has {known}")
        where = target or name
        self._refuse_shards(name, where)
        raw = self._config(name)
        parts = AdapterParts(
            where=where,
            store=TensorsInMemory(self._tensors(name), where),
            config=parse_config(parse_object(raw, where), where),
            config_sha256=hashlib.sha256(raw).hexdigest(),
        )
        return adapter_from(parts, shapes)

    def _refuse_shards(self, name: str, where: str) -> None:
        """DeepSpeed's ZeRO-3 leaves empty tensors where it has cut weights into shards."""
        for key, parameter in self._model.named_parameters():
            status = getattr(getattr(parameter, "ds_status", None), "name", "AVAILABLE")
            if status != "AVAILABLE" and name in key.split(".")[-3:]:
                raise UnreadableFileError(
                    "its weights are cut into shards (DeepSpeed ZeRO-3)",
                    where=where,
                    todo="scan a saved checkpoint, or train it with ZeRO-2",
                )

    def _config(self, name: str) -> bytes:
        """The adapter_config.json that `save_pretrained` would write."""
        config = self._model.peft_config[name]
        fields: dict[str, Any] = config.to_dict()
        if fields.get("base_model_name_or_path") is None:
            fields["base_model_name_or_path"] = self._base_name()
        fields = {
            key: sorted(value) if isinstance(value, set) else value for key, value in fields.items()
        }
        return json.dumps({**fields, "inference_mode": True}, indent=2, sort_keys=True).encode()

    def _base_name(self) -> str | None:
        base = self._model
        if isinstance(base, PeftModel):
            base = base.get_base_model()
        name = getattr(base, "name_or_path", None)
        return name if isinstance(name, str) and name else None

    def _tensors(self, name: str) -> dict[str, Any]:
        """What `save_pretrained` would write of one adapter, in the file's order, not copied."""
        tensors = self._state(name)
        if not isinstance(self._model, PeftModel):
            tensors = {f"{_NATIVE_PREFIX}{key}": value for key, value in tensors.items()}
        return dict(sorted(tensors.items(), key=_place_in_file))

    def _state(self, name: str) -> dict[str, Any]:
        """PEFT's state dict; whether embeddings belong to it is asked once.

        PEFT answers that by looking for the base's configuration on the hub, which is too
        much for every few training steps.
        """

        def state(with_embeddings: bool | str) -> dict[str, Any]:
            found: dict[str, Any] = get_peft_model_state_dict(
                self._model, adapter_name=name, save_embedding_layers=with_embeddings
            )
            return found

        if name in self._with_embeddings:
            return state(self._with_embeddings[name])
        tensors = state("auto")
        self._with_embeddings[name] = tensors.keys() != state(False).keys()
        return tensors
