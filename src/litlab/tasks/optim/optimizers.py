import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from litlab.config.hyperparameters import Betas, Count, Decay, NonNegative, Positive, Probability

Group = dict[str, Any]  # one entry of an optimizer's param_groups


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers behind the interface of one: groups, state, step and state_dict.

    The parts read this object's groups and state, so that a scheduler's lr or a loaded checkpoint
    reaches them without copying. Two optimizers in a LightningModule would mean manual
    optimization: no accumulation, no clipping, no scheduler by configuration.

    Args:
        muon: Has the hidden matrices.
        adamw: Has all other parameters; a group added later joins it.
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self._parts = {"muon": muon, "adamw": adamw}
        groups = [
            {**group, "algorithm": name}
            for name, part in self._parts.items()
            for group in part.param_groups
        ]
        super().__init__(groups, {"algorithm": "adamw"})

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's own is overloaded
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update all parameters once; return the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, part in self._parts.items():
            # Anew at each step: load_state_dict replaces both objects.
            part.param_groups = [g for g in self.param_groups if g["algorithm"] == name]
            part.state = self.state
            part.step()
        return loss

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters; without an "algorithm" they are AdamW's."""
        if param_group.get("algorithm", "adamw") == "adamw":
            param_group = {**self._parts["adamw"].defaults, **param_group}
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_parts": self._parts}


class SGDW(torch.optim.SGD):
    """SGD whose weight decay scales the weights, `w (1 - lr * weight_decay)`, before each step.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 1, with
    lr where the paper has a schedule multiplier of its own (as in torch's AdamW). torch's SGD adds
    `weight_decay * w` to the gradient instead, so that momentum amplifies it.
    """

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's own is overloaded
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update all parameters once; return the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:  # first of all: the gradient is that of the weights as they are
            with torch.enable_grad():
                loss = closure()
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                updated = [p for p in group["params"] if p.grad is not None]
                if group["weight_decay"] and updated:
                    torch._foreach_mul_(
                        updated, self._factor(1 - group["lr"] * group["weight_decay"])
                    )
                group["weight_decay"] = 0.0
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss

    def _factor(self, factor: float) -> float | torch.Tensor:
        """Return a factor that is 1 where torch's kernel is told to leave the weights alone.

        The flag `found_inf` is that of `torch.amp.GradScaler`; it stays on its device.
        """
        found: torch.Tensor | None = getattr(self, "found_inf", None)
        if found is None:
            return factor
        values = torch.full((2,), factor, dtype=torch.float64, device=found.device)
        values[1:].fill_(1.0)
        return torch.where(found > 0, values[1], values[0])


# How far each parameter lies from the head: what layer-wise learning rates go by.


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


# Decay would pull positions and the class token towards "nowhere": they are no weights. Whole parts
# of the dotted name, for a `position_wise` layer has weights like any other.
UNDECAYED = re.compile(
    r"bias$|(^|\.)(pos|positions?|positional)(_(embed(ding)?s?|encodings?|tokens?))?(\.|$)"
    r"|(^|\.)(cls|class)_tokens?(\.|$)"
)
EMBEDDING = re.compile(r"(^|\.)(\w+_)?embed(ding)?s?(\.|$)")
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
FUSED_DEVICES = {"cpu", "cuda"}


def parameter_groups(
    model: nn.Module, weight_decay: float, lr: float = 0.0, layer_decay: float = 1.0
) -> list[Group]:
    """Split the trainable parameters into those that decay and those that do not.

    Weights decay: parameters of two dimensions or more (nanoGPT's rule, so embeddings and
    convolutions too). Biases, norms, positions and class tokens do not; the last two are known by
    a part of their dotted name: `positions`, `pos_embed`, `position_embedding`, `class_token`, ...

    With `layer_decay` below 1 each level of the network has groups of its own, whose learning rate
    is `lr * layer_decay ** d`, d levels below the head (ELECTRA, Clark et al. 2020, appendix A;
    BEiT, Bao et al. 2022). `litlab.tasks.optim.optimizers` says what a level is.

    Returns:
        One or two groups, "decay" and "no_decay", or as many for each level, the head's first; a
        group without parameters is left out. A tied parameter is in one group, once, by its first
        name.

    Raises:
        ValueError: No parameter is trainable.
    """
    norms = {
        id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)
    }
    named = dict(model.named_parameters())
    decaying = {
        id(p)
        for name, p in named.items()
        if p.ndim >= 2 and id(p) not in norms and not UNDECAYED.search(name)
    }
    if layer_decay == 1.0:
        groups = _two(list(named.values()), decaying, weight_decay)
    else:
        levels = depths(model, decaying)
        top = max(levels.values(), default=0)
        groups = []
        for level in range(top, -1, -1):
            scale = layer_decay ** (top - level)
            own = _two(
                [p for p in named.values() if levels[id(p)] == level], decaying, weight_decay
            )
            for group in own:
                name = f"{group['name']}_{level}"
                groups.append({**group, "name": name, "lr": lr * scale, "lr_scale": scale})
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("model: no parameter is trainable; unfreeze at least one layer")
    return groups


def _two(parameters: list[nn.Parameter], decaying: set[int], weight_decay: float) -> list[Group]:
    trainable = [p for p in parameters if p.requires_grad]
    decay = [p for p in trainable if id(p) in decaying]
    rest = [p for p in trainable if id(p) not in decaying]
    return [
        {"name": "decay", "params": decay, "weight_decay": weight_decay},
        {"name": "no_decay", "params": rest, "weight_decay": 0.0},
    ]


def _fused(model: nn.Module) -> bool | None:
    """Return True where torch has one kernel for the whole step, else None: torch's own choice.

    Not for all optimizers does it know what to do with weights that are shared out (`DTensor`).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    fits = all(
        p.is_floating_point() and p.device.type in FUSED_DEVICES and not hasattr(p, "full_tensor")
        for p in parameters
    )
    return True if fits else None


def _scaled_outside(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    # A fused optimizer would undo float16's loss scaling inside its kernel, and Lightning then
    # refuses to clip gradients under any mixed precision. Without this flag the scaler divides
    # before clipping, to the same end.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def adam(
    model: nn.Module,
    *,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 0.0,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    layer_decay: Decay = 1.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba, ICLR 2015).

    The paper has no weight decay. Above 0 it is decoupled, on weights only, which makes this the
    same as `adamw`; Adam with an L2 penalty inside the gradient is not offered, for its strength
    would vary with each weight's gradient history.
    """
    return _scaled_outside(
        torch.optim.Adam(
            parameter_groups(model, weight_decay, lr, layer_decay),
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            decoupled_weight_decay=True,
            fused=_fused(model),
        )
    )


def adamw(
    model: nn.Module,
    *,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 0.01,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    layer_decay: Decay = 1.0,
) -> torch.optim.Optimizer:
    """AdamW: each step first scales the weights by `1 - lr * weight_decay`.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019. The paper scales by
    `1 - eta_t * lambda` with a schedule multiplier apart from lr; torch, and so we, multiply by lr.
    """
    return _scaled_outside(
        torch.optim.AdamW(
            parameter_groups(model, weight_decay, lr, layer_decay),
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            fused=_fused(model),
        )
    )


def sgd(
    model: nn.Module,
    *,
    lr: Positive = 0.1,
    weight_decay: NonNegative = 5e-3,
    momentum: Probability = 0.9,
    nesterov: bool = True,
    layer_decay: Decay = 1.0,
) -> torch.optim.Optimizer:
    """SGD with momentum (Sutskever et al., ICML 2013), its weight decay decoupled (`SGDW`).

    A recipe for torch's own SGD, whose L2 term goes through the momentum, means about
    `1 / (1 - momentum)` times its figure here: 5e-4 with momentum 0.9 becomes 5e-3.

    Raises:
        ValueError: Nesterov's look-ahead is asked for without momentum.
    """
    if nesterov and momentum == 0:
        raise ValueError(
            "optimizer.nesterov needs optimizer.momentum > 0; set optimizer.nesterov=false"
        )
    return _scaled_outside(
        SGDW(
            parameter_groups(model, weight_decay, lr, layer_decay),
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            fused=_fused(model),
        )
    )


def _hidden_and_others(groups: list[Group], outer: set[int]) -> tuple[list[Group], list[Group]]:
    """Split groups into those of hidden matrices and the rest; `outer` are ids of no such."""
    matrices: list[Group] = []
    others: list[Group] = []
    for group in groups:
        decays = group["name"].startswith("decay")
        hidden = [p for p in group["params"] if decays and p.ndim == 2 and id(p) not in outer]
        own = {id(p) for p in hidden}
        rest = [p for p in group["params"] if id(p) not in own]
        if hidden:
            name = group["name"].replace("decay", "muon")
            matrices.append({**group, "name": name, "params": hidden})
        if rest:
            others.append({**group, "params": rest})
    if not matrices:
        raise ValueError(
            "optimizer=muon finds no hidden matrix in the model (a two-dimensional weight that is"
            " neither embedding nor head); set optimizer=adamw"
        )
    return matrices, others


def muon(
    model: nn.Module,
    *,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 0.01,
    momentum: Probability = 0.95,
    nesterov: bool = True,
    ns_steps: Count = 5,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    layer_decay: Decay = 1.0,
) -> torch.optim.Optimizer:
    """Muon on the hidden matrices, AdamW on everything else, as one optimizer.

    Muon replaces the momentum by the nearest orthogonal matrix (Jordan et al., "Muon: An optimizer
    for hidden layers in neural networks", 2024). Its step is scaled by `0.2 sqrt(max(rows, cols))`,
    so that both halves share one lr and weight_decay, those tuned for AdamW (Liu et al., "Muon is
    Scalable for LLM Training", 2025, section 2.2).

    Hidden matrices are the two-dimensional weights, without positions, class tokens, embeddings
    (`nn.Embedding`, or `embed` in the name) and the head: the model's last `nn.Linear` in order of
    registration. Convolutions go to AdamW, for torch's Muon takes two dimensions only. betas and
    eps are AdamW's.

    Raises:
        ValueError: The model has no hidden matrix.
    """
    groups = parameter_groups(model, weight_decay, lr, layer_decay)
    matrices, others = _hidden_and_others(groups, _outer(model))
    return MuonAdamW(
        torch.optim.Muon(
            matrices,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others or [{"params": []}],
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            fused=_fused(model),
        ),
    )


def _outer(model: nn.Module) -> set[int]:
    """Return the ids of the embeddings' and the head's parameters."""
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    named = [p for name, p in model.named_parameters() if EMBEDDING.search(name)]
    return {id(p) for p in named} | {id(p) for m in [*embeddings, *head] for p in m.parameters()}
