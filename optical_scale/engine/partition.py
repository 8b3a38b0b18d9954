"""Parameters that are partitioned as soon as they have values, before DeepSpeed sees the whole model."""

from typing import Any

from torch import nn


class Partition:
    """Called with one parameter after the other, keeps this rank's share of each; all ranks call in the same order.

    Args:
        deepspeed_config: the derived configuration of stage 3 under which the model will be initialised.
    """

    def __init__(self, deepspeed_config: dict[str, Any]) -> None:
        self._config = deepspeed_config
        self._first: Any = None

    def __call__(self, parameter: nn.Parameter) -> None:
        """Replace the values of ``parameter``, in place, by this rank's share."""
        if self._first is None:
            import deepspeed

            deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=self._config)
            self._first = parameter
        else:
            self._first.convert_to_zero_parameters(param_list=[parameter])
