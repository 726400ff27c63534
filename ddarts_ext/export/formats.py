"""The forms in which a trained network leaves the package; all are of :meth:`DiscreteNetwork.plain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ddarts_ext.export.source import source
from ddarts_ext.nn import DiscreteNetwork, NASBench201Network
from ddarts_ext.nn.plain import PlainNetwork, folded
from ddarts_ext.runs.files import replacing, write_whole
from ddarts_ext.training import TrainedNetwork

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "python": ".py", "safetensors": ".safetensors"}
"""What :func:`export` writes, and how the names of the files end."""
OPSET = 18
"""Of the ONNX files."""


def for_inference(trained: TrainedNetwork, *, fold: bool = False) -> nn.Module:
    """The network from torch's own layers on the CPU, in evaluation mode, without its auxiliary head.

    fold: batch norms become part of the convolutions before them.
    """
    network = cast("DiscreteNetwork | NASBench201Network", trained.network)
    plain = network.plain().cpu().eval()
    if isinstance(plain, PlainNetwork):
        plain.auxiliary = None
    return folded(plain) if fold else plain


def export(trained: TrainedNetwork, to: str, out: str | Path, *, fold: bool = False) -> list[Path]:
    """Write the network to ``out``; the files that were written, each of them whole or not at all.

    to: ``onnx`` (a file of opset 18), ``torch`` (what ``torch.export.load`` reads) or ``safetensors`` (the weights by
    the names of the plain network), or ``python``: a file of code that needs nothing but torch, with the weights beside
    it as a ``.pt``. The networks take normalised images [N, C, H, W] of the size of the training, any N, and give
    logits; how images are prepared stands in each file as JSON, or in the Python file as constants.
    Raises ValueError for another format, and where a package is missing that it needs.
    """
    if to not in FORMATS:
        raise ValueError(f"export: to must be one of {', '.join(FORMATS)}, got {to!r}")
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"export: out must be a file, got the folder {path}")
    network = for_inference(trained, fold=fold)
    said = json.dumps({**trained.description.to_json(), "folded": fold})
    if to == "python":
        return _python(trained, network, path, fold)
    content = {"onnx": _onnx, "torch": _program, "safetensors": _tensors}[to](trained, network, said)
    write_whole(path, content)
    return [path]


def _example(trained: TrainedNetwork) -> Tensor:
    found = trained.description
    return torch.zeros(2, found.in_channels, *found.size, dtype=next(trained.parameters()).dtype)


def _onnx(trained: TrainedNetwork, network: nn.Module, said: str) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"export: onnx needs the packages onnx and onnxscript (pip install 'ddarts_ext[onnx]'): {error}"
        ) from error
    program = torch.onnx.export(
        network,
        (_example(trained),),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    assert program is not None
    model: Any = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "network", said
    content: bytes = model.SerializeToString()
    return content


def _program(trained: TrainedNetwork, network: nn.Module, said: str) -> bytes:
    import io

    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (_example(trained),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"network.json": said})
    return file.getvalue()


def _tensors(trained: TrainedNetwork, network: nn.Module, said: str) -> bytes:
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save(state, {"network": said})


def _python(trained: TrainedNetwork, network: nn.Module, path: Path, fold: bool) -> list[Path]:
    weights = path.with_suffix(".pt")
    if weights == path:
        raise ValueError(f"export: out must not end in .pt for python, which writes the weights there, got {path}")
    with replacing(weights) as file:
        torch.save(network.state_dict(), file)
    write_whole(path, source(trained, fold=fold, weights=weights.name).encode())
    return [path, weights]
