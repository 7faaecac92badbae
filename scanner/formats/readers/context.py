"""What a reader knows beside one module's own tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scanner.errors import MalformedFileError
from scanner.formats.architectures import ROLES, Role
from scanner.formats.model import FloatArray, TensorStore
from scanner.formats.module_names import site_of
from scanner.formats.peft_config import PeftConfig


def _role(module: str) -> Role | None:
    """What kinds of vectors a module reads and writes, by the last component of its path."""
    return ROLES.get(module.rpartition(".")[2])


@dataclass
class Context:
    """The rest of an adapter and its base, as far as one module's delta depends on them."""

    store: TensorStore
    config: PeftConfig
    shared: Mapping[str, str] = field(default_factory=dict)
    """Part -> name of a tensor that all modules share."""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Module -> (d_out, d_in) of the base, if the caller knows it."""
    dimensions: dict[str, int] = field(default_factory=dict)
    """Kind of vector (`architectures.ROLES`), e.g. the residual stream -> its size, as far as
    the adapter's own tensors tell it."""
    _cache: dict[str, FloatArray] = field(default_factory=dict)

    def learn_outputs(self, outputs: Mapping[str, int]) -> None:
        """Learns the sizes of the vectors that modules write.

        Args:
            outputs: Module path -> its d_out.
        """
        for module, d_out in outputs.items():
            role = _role(module)
            if role and role.writes:
                self.dimensions.setdefault(role.writes, d_out)

    def learn_widest_input(self, modules: Iterable[str], width: int) -> None:
        """Learns from the largest d_in of all modules, where it is the d_in of every one.

        That is so if all of them read the same kind of vector, such as the residual stream.

        Args:
            modules: Paths of all modules that the adapter changes.
            width: The largest d_in among them.
        """
        kinds = {role.reads if (role := _role(module)) else None for module in modules}
        if len(kinds) == 1 and (kind := kinds.pop()) is not None:
            self.dimensions[kind] = width

    def shapes_of(self, module: str) -> tuple[int, int] | None:
        """(d_out, d_in) of a module, if the caller knows the base."""
        return self.shapes.get(site_of(module).module)

    def width(self, module: str) -> int:
        """A module's input dimension, which some types do not store.

        Raises:
            MalformedFileError: If nothing tells it.
        """
        known = self.shapes_of(module)
        if known is not None:
            return known[1]
        role = _role(module)
        if role is None or role.reads not in self.dimensions:
            raise MalformedFileError("the base's dimensions are needed and not in the file")
        return self.dimensions[role.reads]

    def height(self, module: str) -> int:
        """A module's output dimension. Raises what `width` raises."""
        known = self.shapes_of(module)
        if known is None:
            raise MalformedFileError("the base's dimensions are needed and not in the file")
        return known[0]

    def shared_tensor(self, part: str) -> FloatArray:
        """A tensor that all modules share, read once."""
        if part not in self._cache:
            self._cache[part] = self.store.read(self.shared[part])
        return self._cache[part]

    def shared_shape(self, part: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a shared tensor.

        Raises:
            MalformedFileError: If it is missing, empty, or has other dimensions.
        """
        if part not in self.shared:
            raise MalformedFileError(f"no {part} in the file")
        shape = self.store.info(self.shared[part]).shape
        if len(shape) != dimensions or 0 in shape:
            raise MalformedFileError(f"{part} has shape {list(shape)}")
        return shape
