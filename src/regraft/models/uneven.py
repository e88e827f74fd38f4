"""A causal language model whose layers have different widths, for transformers' own classes.

`Uneven` in front of such a class makes the parameters as `config.uneven` says, where that differs from what the rest of
the config says. This file is written beside such a checkpoint as it is, so it needs nothing but torch.
"""

import copy
from typing import Any

import torch


class Uneven(torch.nn.Module):
    """Before the first layer runs, the parameters get their own shapes.

    `config.uneven` has `parameters` (name -> shape, of those whose shape the config does not tell) and `attributes`
    (module -> name -> number, such as its heads).
    """

    def __init__(self, config: Any, *inputs: Any, **settings: Any) -> None:
        # the classes of transformers refuse to be built from widths by layer, so they are built as wide as the widest
        even = copy.deepcopy(config)
        even.per_layer_config = None
        super().__init__(even, *inputs, **settings)
        for name, shape in even.uneven["parameters"].items():
            place, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(place), leaf, torch.nn.Parameter(torch.zeros(shape)))
        for place, numbers in even.uneven["attributes"].items():
            for name, number in numbers.items():
                setattr(self.get_submodule(place), name, number)
