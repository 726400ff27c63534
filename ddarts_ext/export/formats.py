"""The forms in which a trained network leaves the package; all are of :meth:`DiscreteNetwork.plain`."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ddarts_ext.export.source import source
from ddarts_ext.nn import DiscreteNetwork, NASBench201Network
from ddarts_ext.nn.plain import PlainNetwork, folded
from ddarts_ext.runs.files import check_target, replacing, write_whole
from ddarts_ext.runs.losses import CLASSES, VALUES
from ddarts_ext.training import TrainedNetwork
from ddarts_ext.training.trained import activated

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "python": ".py", "safetensors": ".safetensors"}
"""What :func:`export` writes, and how the names of the files end."""
OPSET = 18
"""Of the ONNX files."""
FROM_PIXELS = ("onnx", "torch")
"""The formats that may hold the normalisation and the softmax."""
IN_METADATA = ("classes", "size", "in_channels", "mean", "std", "pixels", "task")
"""What stands in the metadata of an ONNX file by itself, each as JSON, beside ``network``, which is all of it."""


class FromPixels(nn.Module):
    """Pixels between 0 and 1, float [N, C, H, W] of the size of the training -> probabilities [N, K],
    or the numbers of a network for such."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], task: str = CLASSES) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.mean: Tensor
        self.std: Tensor
        like = next(network.parameters())
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return activated(logits, self.task)


def for_inference(trained: TrainedNetwork, *, fold: bool = False, pixels: bool = False) -> nn.Module:
    """The network from torch's own layers on the CPU, in evaluation mode, without its auxiliary head.

    fold: batch norms become part of the convolutions before them. pixels: see :class:`FromPixels`.
    """
    network = cast("DiscreteNetwork | NASBench201Network", trained.network)
    plain = network.plain().cpu().eval()
    if isinstance(plain, PlainNetwork):
        plain.auxiliary = None
    found: nn.Module = folded(plain) if fold else plain
    if pixels:
        about = trained.description
        found = FromPixels(found, about.mean, about.std, about.task).eval()
    return found


def export(
    trained: TrainedNetwork, to: str, out: str | Path, *, fold: bool = False, pixels: bool = False
) -> list[Path]:
    """Write the network to ``out``; the files that were written, each of them whole or not at all.

    to: ``onnx`` (a file of opset 18), ``torch`` (what ``torch.export.load`` reads) or ``safetensors`` (the weights by
    the names of the plain network), or ``python``: a file of code that needs nothing but torch, with the weights beside
    it as a ``.pt``. The networks take normalised images [N, C, H, W] of the size of the training, any N, and give
    logits; how images are prepared stands in each file as JSON, or in the Python file as constants. pixels: of ``onnx``
    and ``torch``, the normalisation and the softmax are inside: pixels between 0 and 1 -> probabilities.
    Raises ValueError for another format, and where a package is missing that it needs.
    """
    if to not in FORMATS:
        raise ValueError(f"export: to must be one of {', '.join(FORMATS)}, got {to!r}")
    path = Path(out)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"export: out must be in a folder that exists, got {path}")
    check_target("export: out", path)
    if pixels and to not in FROM_PIXELS:
        raise ValueError(f"export: pixels must be left out where to is not {' or '.join(FROM_PIXELS)}, got {to!r}")
    network = for_inference(trained, fold=fold, pixels=pixels)
    said = {**trained.description.to_json(), "folded": fold, "pixels": pixels}
    if to == "python":
        return _python(trained, network, path, fold)
    content = {"onnx": _onnx, "torch": _program, "safetensors": _tensors}[to](trained, network, said)
    write_whole(path, content)
    return [path]


def _example(trained: TrainedNetwork) -> Tensor:
    found = trained.description
    return torch.zeros(2, found.in_channels, *found.size, dtype=next(trained.parameters()).dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of its own insides: ops of torchvision that no network here has."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(before)


def _onnx(trained: TrainedNetwork, network: nn.Module, said: dict[str, Any]) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"export: onnx needs the packages onnx and onnxscript (pip install 'ddarts_ext[onnx]'): {error}"
        ) from error
    with _quiet():
        program = torch.onnx.export(
            network,
            (_example(trained),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["pixels" if said["pixels"] else "images"],
            output_names=[_output(said["pixels"], trained.description.task)],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
    assert program is not None
    model: Any = program.model_proto
    about = {**{name: said[name] for name in IN_METADATA if name in said}, "network": said}
    for name, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    content: bytes = model.SerializeToString()
    return content


def _output(pixels: bool, task: str) -> str:
    """What the outputs of the file are called."""
    return "values" if task == VALUES else "probabilities" if pixels else "logits"


def _program(trained: TrainedNetwork, network: nn.Module, said: dict[str, Any]) -> bytes:
    import io

    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (_example(trained),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"network.json": json.dumps(said)})
    return file.getvalue()


def _tensors(trained: TrainedNetwork, network: nn.Module, said: dict[str, Any]) -> bytes:
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save(state, {"network": json.dumps(said)})


def _python(trained: TrainedNetwork, network: nn.Module, path: Path, fold: bool) -> list[Path]:
    weights = path.with_suffix(".pt")
    if weights == path:
        raise ValueError(f"export: out must not end in .pt for python, which writes the weights there, got {path}")
    with replacing(weights) as file:
        torch.save(network.state_dict(), file)
    write_whole(path, source(trained, fold=fold, weights=weights.name).encode())
    return [path, weights]
