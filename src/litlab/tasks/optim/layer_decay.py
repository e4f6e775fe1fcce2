"""How far each parameter lies from the head: what layer-wise learning rates go by."""

from collections.abc import Iterator

from torch import nn

STACKS = (nn.ModuleList, nn.Sequential)


def depths(model: nn.Module, weights: set[int]) -> dict[int, int]:
    """Return each parameter's level by its id: 0 is the input, the largest number is the head.

    Levels are counted in order of registration, which is the order of the forward pass in every
    network built the usual way. A level is one unit with weights: a linear layer, a convolution, a
    block. Lists and sequences of modules are taken apart, and so are modules that hold nothing
    else; a block with several parts is one level, as in BEiT. What has no weights of its own
    (normalization, positions) belongs to the unit before it; embeddings and parameters of the model
    itself (a class token) to the input.

    Args:
        model: The network.
        weights: Ids of the parameters that count as weights, not as biases, norms or positions.
    """
    level, found = -1, {id(p): 0 for p in model.parameters(recurse=False)}
    for unit in _units(model, whole=True):
        own = [id(p) for p in unit.parameters()]
        if not own:
            continue
        begins = not weights.isdisjoint(own) and not isinstance(unit, nn.Embedding)
        if level < 0 or (begins and not _is_known(own, found)):
            level += 1
        for key in own:
            found.setdefault(key, level)
    return found


def _is_known(parameters: list[int], found: dict[int, int]) -> bool:
    """Whether they were all met before: tied weights are where they came first."""
    return all(key in found for key in parameters)


def _units(module: nn.Module, *, whole: bool = False) -> Iterator[nn.Module]:
    """Take apart what is a list of modules, or holds no other parameters than one."""
    children = [child for child in module.children() if _has_parameters(child)]
    direct = next(module.parameters(recurse=False), None) is not None
    only_a_stack = not direct and len(children) == 1 and isinstance(children[0], STACKS)
    if not whole and not isinstance(module, STACKS) and not only_a_stack:
        yield module
        return
    for child in children:
        yield from _units(child)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
