"""The auxiliary classifier that helps to train a deep network (DARTS, section 3; after Inception)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.norm import GroupedNorm
from ddarts_ext.nn.pointwise import conv2d, conv_weight, pointwise


class AuxiliaryHead(nn.Module):
    """ReLU, 5x5 average pooling to 2x2, 1x1 convolution to 128, norm, ReLU, 2x2 to 768, norm, ReLU, classifier.

    stride: of the pooling, 3 in the CIFAR networks (from 8x8), 2 in the ImageNet ones (from 7x7). Where it does not end
    at 2x2 (small or other images), pooling is adaptive. second_norm: whether the second norm is there; DARTS leaves it
    out on ImageNet.
    """

    def __init__(self, channels: int, classes: int, *, stride: int = 3, second_norm: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.weight0 = conv_weight(128, channels, 1, 1)
        self.norm0 = GroupedNorm(128, affine=True)
        self.weight1 = conv_weight(768, 128, 2, 2)
        self.norm1 = GroupedNorm(768, affine=True) if second_norm else None
        self.classifier: nn.Module = nn.Linear(768, classes)

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        """[N, C, H, W] -> logits [N, classes]."""
        x = x.relu()
        if all(0 <= side - 5 < 2 * self.stride and (side - 5) // self.stride == 1 for side in x.shape[2:]):
            x = F.avg_pool2d(x, 5, self.stride, count_include_pad=False)
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        x = conv2d(self.norm0(pointwise(x, self.weight0), p, relu=True), self.weight1)
        x = self.norm1(x, p, relu=True) if self.norm1 is not None else x.relu()
        logits: Tensor = self.classifier(x.flatten(1))
        return logits
