"""The published architectures among the models of timm: ``import ddarts_ext.timm_models`` registers them.

Their names begin with ``ddarts_``, as ``ddarts_darts_v2``; they take the arguments of :func:`ddarts_ext.create_model`,
and have no pretrained weights. Needs the package timm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from ddarts_ext.nn import create_model, list_models

try:
    from timm.models import register_model
except ImportError as error:
    raise ImportError(
        f"ddarts_ext.timm_models needs the package timm (pip install 'ddarts_ext[timm]'): {error}"
    ) from error


def timm_name(name: str) -> str:
    """What a published architecture is called in timm."""
    return "ddarts_" + re.sub(r"[^a-z0-9]+", "_", name.lower())


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **arguments: Any,
    ) -> nn.Module:
        if pretrained:
            raise ValueError(f"{timm_name(name)}: pretrained must be False, as there are no weights of it, got True")
        return create_model(name, **arguments)

    build.__name__ = build.__qualname__ = timm_name(name)
    build.__doc__ = f"The published architecture {name}."
    return build


__all__ = ["timm_name"]
for _name in list_models():
    register_model(_entrypoint(_name))
