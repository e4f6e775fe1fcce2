import re
from typing import Any

import torch
from torch import nn

from litlab.config.hyperparameters import Betas, Count, Decay, NonNegative, Positive, Probability
from litlab.tasks.optim.layer_decay import depths
from litlab.tasks.optim.muon import MuonAdamW
from litlab.tasks.optim.sgdw import SGDW

Group = dict[str, Any]  # one entry of an optimizer's param_groups

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
    BEiT, Bao et al. 2022). `litlab.tasks.optim.layer_decay` says what a level is.

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
