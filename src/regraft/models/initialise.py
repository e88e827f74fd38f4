"""Draws the weights of a model anew, as its architecture draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.interfaces import LanguageModel

DONE = "_is_hf_initialized"
"""Mark that transformers leaves on what it has initialised or loaded, and does not touch again."""


def initialise(model: LanguageModel, seed: int) -> None:
    """Draw all weights, in place; shapes, dtype and device stay, and masked weights stay zero.

    The draws are made on the CPU, so that a device moves none of them.
    """
    import torch

    network: Any = model.model
    device = network.device
    network.to("cpu")
    for marked in (*network.modules(), *network.parameters(), *network.buffers()):
        if hasattr(marked, DONE):
            delattr(marked, DONE)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network.init_weights()
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, mask in model.masks.items():
            parameters[name].mul_(mask.to(parameters[name].device))
    network.to(device)
