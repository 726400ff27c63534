"""A trained network with what it takes to use it: :func:`load_network` reads it from the folder of its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddarts_ext.data import normalise
from ddarts_ext.data.decode import picture_pixels, pillow, read_picture
from ddarts_ext.runs.device import choose_device
from ddarts_ext.runs.losses import CLASSES, MULTI_LABEL, VALUES
from ddarts_ext.training import weights as files
from ddarts_ext.training.description import Description

_FILE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Predictions:
    """probabilities: float32 [N, K] on the CPU: of one of K classes, or of each of K labels, or where ``task`` is
    ``values``, the K numbers themselves. classes: the K names, in that order."""

    probabilities: Tensor
    classes: tuple[str, ...]
    task: str = CLASSES

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> list[str]:
        """The most probable class of every image; of several labels at once the names of those above 1/2, with commas.

        Raises ValueError for numbers, which have none.
        """
        if self.task == VALUES:
            raise ValueError("predict: labels must be asked of a network for classes, and this one gives numbers")
        if self.task == MULTI_LABEL:
            return [", ".join(name for name, _ in row) for row in self._above(0.5)]
        return [self.classes[i] for i in self.probabilities.argmax(1).tolist()]

    def top(self, count: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of every image with their probabilities, in falling order; numbers in theirs."""
        if self.task == VALUES:
            return [list(zip(self.classes, row, strict=True))[:count] for row in self.probabilities.tolist()]
        values, indices = self.probabilities.topk(min(count, len(self.classes)), 1)
        return [
            [(self.classes[i], p) for i, p in zip(names, row, strict=True)]
            for names, row in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    def _above(self, least: float) -> list[list[tuple[str, float]]]:
        rows = self.probabilities.tolist()
        return [[each for each in zip(self.classes, row, strict=True) if each[1] > least] for row in rows]


class TrainedNetwork(nn.Module):
    """The network of a training, with its classes and the preparation of its images.

    network: :class:`ddarts_ext.nn.DiscreteNetwork` or :class:`ddarts_ext.nn.NASBench201Network`. description: all else.
    ``trained(x)`` are the logits [N, K] of images that are prepared already; ``trained.predict(images)`` prepares them.
    """

    def __init__(self, network: nn.Module, description: Description) -> None:
        super().__init__()
        self.network, self.description = network, description

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.description.classes

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of float images [N, C, H, W], as :meth:`prepare` gives them."""
        logits: Tensor = self.network(x)
        return logits

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [N, C, H, W] of the right size -> what the network takes, as in its training."""
        found = self.description
        return normalise(pixels, found.mean, found.std).contiguous(memory_format=torch.channels_last)

    def prepare(self, images: Any) -> Tensor:
        """What the network takes, float32 [N, C, H, W] on its device, of one image or several.

        images: paths, pictures of Pillow, arrays uint8 [H, W] or [H, W, C], or tensors uint8 [C, H, W]; or one tensor
        [N, C, H, W] or array [N, H, W, C]. They are scaled until they cover the size that the network was trained on,
        cut to it in the middle, made grey or colour as it was, and normalised by its mean and std: what the reader of
        image folders does. Raises TypeError or ValueError for what is no image, UnreadableImage naming a file.
        """
        pixels = torch.stack([self._pixels(image) for image in _each(images)])
        return self.normalise(pixels.to(self.device))

    @torch.no_grad()
    def predict(self, images: Any, batch: int = 64) -> Predictions:
        """The probabilities of every class, or of each of several labels, or the numbers, for what :meth:`prepare`
        takes; the network is left in evaluation mode."""
        given = list(_each(images))
        if not given:
            raise ValueError("predict: images must be one or more, got none")
        self.eval()
        parts = [given[start : start + batch] for start in range(0, len(given), batch)]
        task = self.description.task
        found = [activated(self(self.prepare(part)).float(), task).cpu() for part in parts]
        return Predictions(torch.cat(found), self.classes, task)

    def _pixels(self, image: Any) -> Tensor:
        """One image as uint8 [C, H, W] of the size of the training."""
        size, channels = self.description.size, self.description.in_channels
        if isinstance(image, Tensor):
            _check_kind(image.dtype == torch.uint8, image.dim() == 3, image, "[C, H, W]")
            if tuple(image.shape) == (channels, *size):
                return image.cpu()
            image = image.permute(1, 2, 0).cpu().numpy()
        elif isinstance(image, np.ndarray):
            _check_kind(image.dtype == np.uint8, image.ndim in (2, 3), image, "[H, W] or [H, W, C]")
            image = image[:, :, None] if image.ndim == 2 else image
            if image.shape == (*size, channels):
                return torch.from_numpy(image.copy()).permute(2, 0, 1)
        if channels not in _FILE_CHANNELS or (isinstance(image, np.ndarray) and image.shape[2] not in _FILE_CHANNELS):
            got = list(image.shape) if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(
                f"predict: images must be of {channels} channels and {size[0]}x{size[1]} pixels, got {got}"
            )
        if isinstance(image, np.ndarray):
            image = pillow().fromarray(image if image.shape[2] == 3 else image[:, :, 0])
        elif isinstance(image, (str, Path)):
            return read_picture(Path(image), size, channels)
        elif not isinstance(image, pillow().Image):
            raise TypeError(f"predict: images must be paths, pictures, arrays or tensors, got {type(image).__name__}")
        return picture_pixels(image, size, channels)


def activated(outputs: Tensor, task: str) -> Tensor:
    """What outputs [N, K] mean: probabilities of classes (softmax), of labels (sigmoid), or the numbers themselves."""
    return outputs.softmax(1) if task == CLASSES else outputs.sigmoid() if task == MULTI_LABEL else outputs


def _check_kind(uint8: bool, dims: bool, image: Any, shape: str) -> None:
    if not uint8 or not dims or 0 in image.shape:
        raise TypeError(
            f"predict: images must be uint8 {shape}, got {image.dtype} {list(image.shape)}; the network itself takes "
            "what is normalised already"
        )


def _each(images: Any) -> Iterator[Any]:
    """Image by image."""
    if isinstance(images, Tensor):
        yield from images if images.dim() == 4 else [images]
    elif isinstance(images, np.ndarray):
        yield from images if images.ndim == 4 else [images]
    elif isinstance(images, Sequence) and not isinstance(images, str):
        yield from images
    else:
        yield images


def load_network(
    run: str | Path, *, weights: str = "last", device: str | torch.device | None = "cpu", command: str = "load_network"
) -> TrainedNetwork:
    """The network that was trained in the folder ``run``, with its weights, in evaluation mode.

    run: the folder of a training, or a file of weights that it wrote. weights: ``last``, or ``best`` where it was
    trained with ``keep="best"``. device: auto or None takes a GPU where there is one.
    Raises ValueError, TypeError or OSError in one line for what is not there, damaged, or no trained network.
    """
    where = choose_device(device, command)
    description, tensors = files.read(run, weights, command)
    # Built without memory and compared first: a description that somebody else wrote may ask for any size.
    try:
        with torch.device("meta"):
            network = description.build()
    except RuntimeError as error:  # sizes that no tensor has
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{command}: {run} does not describe a network that can be built: {reason}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            shapes = (list(side[name]) if name in side else "nothing" for side in (wanted, found))
            raise ValueError(
                f"{command}: weights of {run} must have {name} of shape {next(shapes)}, got {next(shapes)}"
            )
    network.load_state_dict(tensors, assign=True)
    return TrainedNetwork(network.to(where), description).eval()
