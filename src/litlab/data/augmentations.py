"""Augmentations from a configuration.

Not in `augment/`, whose functions a `_target_` may name: this one takes what to trust.
"""

from litlab.config.instantiate import build
from litlab.config.schema import Component
from litlab.data.augment.base import Augmentation, needs_partners
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError


def build_augmentations(
    nodes: dict[str, Component], spec: DataSpec, trust: list[str]
) -> dict[str, Augmentation]:
    """Build the augmentations in their order, by name.

    Raises:
        ConfigError: One does not fit the data, or what mixes samples is not the last and only one.
    """
    built = {k: build(node, spec, where=f"augment.{k}", trust=trust) for k, node in nodes.items()}
    try:
        needs_partners(list(built.values()))
    except ValueError as error:
        raise ConfigError(str(error), "augment", "change the order, or choose one") from None
    return built
