"""Every file that leaves the package computes what the network does, without the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from ddarts_ext import spaces
from ddarts_ext.export import FORMATS, OPSET, export, for_inference
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.files import image_architectures
from ddarts_ext.training import TrainedNetwork, load_network
from ddarts_ext.training.description import Description
from ddarts_ext.training.weights import write

NB201 = Genotype.from_nb201("|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|")


def trained(genotype: Genotype, *, stem: str = "cifar", size: tuple[int, int] = (16, 12)) -> TrainedNetwork:
    """As after a training: every tensor is another one than it was made with."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    two = genotype.inputs == 2
    description = Description(genotype, ("cat", "dog", "o'clock"), size, 3, mean, std, 4, stem, two, {"data": "pets"})
    network = description.build()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "norm" in name:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return TrainedNetwork(network, description).eval()


def some() -> dict[str, TrainedNetwork]:
    return {
        "cifar": trained(Genotype.load("ResNet18")),
        "imagenet": trained(Genotype.load("DARTS_V2", layers=4), stem="imagenet", size=(64, 72)),
        "nasbench201": trained(NB201),
    }


def images(network: TrainedNetwork, count: int) -> torch.Tensor:
    return torch.randn(count, 3, *network.description.size)


def agrees(found: Any, network: TrainedNetwork, x: torch.Tensor, tolerance: float = 1e-5) -> None:
    expected = network(x)
    assert (torch.as_tensor(found) - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def onnx_session(path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", ["cifar", "imagenet", "nasbench201"])
def test_onnx(name: str, fold: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    network = some()[name]
    (path,) = export(network, "onnx", tmp_path / "network.onnx", fold=fold)
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    assert all(not node.domain for node in model.graph.node)
    said = json.loads({entry.key: entry.value for entry in model.metadata_props}["network"])
    assert Description.from_json(said) == network.description
    session = onnx_session(path)
    for count in (1, 2, 5):  # the batch is free
        x = images(network, count)
        agrees(session.run(["logits"], {"images": x.numpy()})[0], network, x)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", ["cifar", "imagenet", "nasbench201"])
def test_torch_export(name: str, fold: bool, tmp_path: Path) -> None:
    network = some()[name]
    (path,) = export(network, "torch", tmp_path / "network.pt2", fold=fold)
    more = {"network.json": ""}
    program = torch.export.load(path, extra_files=more)
    assert Description.from_text(more["network.json"]) == network.description
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert called
    assert not any("ddarts" in name for name in called)
    for count in (1, 2, 5):
        x = images(network, count)
        agrees(program.module()(x), network, x)


def standalone(path: Path) -> dict[str, Any]:
    """What the file defines; it is compiled code of ours, run as its user does."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", ["cifar", "imagenet", "nasbench201"])
def test_python_and_safetensors(name: str, fold: bool, tmp_path: Path) -> None:
    network = some()[name]
    path, weights = export(network, "python", tmp_path / "alone.py", fold=fold)
    text = path.read_text()
    assert "import ddarts" not in text
    assert "from ddarts" not in text
    found = standalone(path)
    assert (found["CLASSES"], found["SIZE"]) == (network.classes, network.description.size)
    assert (found["MEAN"], found["STD"]) == (network.description.mean, network.description.std)
    x = images(network, 3)
    alone = found["load"]()
    agrees(alone(x), network, x)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in alone.modules())
    assert (norms <= 1) if fold else (norms > 1)
    (tensors,) = export(network, "safetensors", tmp_path / "network.safetensors", fold=fold)
    state = load_file(tensors)
    kept = torch.load(weights, weights_only=True)
    assert set(state) == set(kept)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in state.items())
    again = found["build"]()
    again.load_state_dict(state)
    agrees(again.eval()(x), network, x)
    with safe_open(tensors, "pt") as file:
        assert Description.from_text(file.metadata()["network"]) == network.description


def published(name: str) -> Genotype:
    genotype = Genotype.load(name, layers=6) if name in ("DARTS_V1", "DARTS_V2") else Genotype.load(name)
    if not all(genotype.joined(i) for i in range(genotype.layers)):
        pytest.skip("its last cell joins no node, so that there is no network of it, and none in its authors' code")
    return genotype


@pytest.mark.parametrize("name", image_architectures())
def test_standalone_files_of_every_published_architecture(name: str, tmp_path: Path) -> None:
    network = trained(published(name), size=(16, 18))
    path, _ = export(network, "python", tmp_path / "alone.py")
    x = images(network, 2)
    agrees(standalone(path)["load"]()(x), network, x)


def longest_cell(genotype: Genotype) -> Genotype:
    """A network of the cell with the most entries, as tracing takes long; how cells follow each other: see above."""
    index = max(range(genotype.layers), key=lambda i: len(genotype.live(i)))
    reductions = (0,) if index in genotype.reduction_cells else ()
    return Genotype((genotype.cells[index],), seq=(0,), concat=genotype.concat, reductions=reductions)


@pytest.mark.parametrize("name", image_architectures())
def test_programs_and_onnx_of_every_published_architecture(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    network = trained(longest_cell(published(name)), size=(8, 9))
    x = images(network, 3)
    (path,) = export(network, "torch", tmp_path / "network.pt2")
    agrees(torch.export.load(path).module()(x), network, x)
    (path,) = export(network, "onnx", tmp_path / "network.onnx")
    agrees(onnx_session(path).run(None, {"images": x.numpy()})[0], network, x)


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_from_pixels_to_probabilities(to: str, tmp_path: Path) -> None:
    """What ``predict`` says of an image follows from the file and what stands in its metadata alone."""
    network = some()["cifar"]
    path = export(network, to, tmp_path / f"network{FORMATS[to]}", pixels=True, fold=True)[0]
    pictures = torch.randint(0, 256, (3, 3, 16, 12), dtype=torch.uint8)
    pixels, expected = pictures / 255, network.predict(pictures).probabilities
    if to == "onnx":
        onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
        said = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
        assert (said["pixels"], said["size"], said["in_channels"]) == (True, [16, 12], 3)
        assert (said["classes"], said["mean"], said["std"]) == (
            list(network.classes),
            list(network.description.mean),
            list(network.description.std),
        )
        (found,) = onnx_session(path).run(["probabilities"], {"pixels": pixels.numpy()})
    else:
        found = torch.export.load(path).module()(pixels).detach().numpy()
    assert torch.allclose(torch.as_tensor(found), expected, atol=1e-5)
    with pytest.raises(ValueError, match="pixels must be left out where to is not onnx or torch, got 'python'"):
        export(network, "python", tmp_path / "alone.py", pixels=True)


def every_op() -> Genotype:
    """A normal and a reduction cell with every op of every space, from an input and, summed up, from a node."""
    ops = sorted(spaces.known_ops() - {"none", *spaces.ACTIVATIONS})
    cell = [*((op, 2, i % 2) for i, op in enumerate(ops)), *((op, 3, 2) for op in ops)]
    return Genotype((tuple(cell), tuple(cell)), seq=(0, 1), concat=(2, 3), reductions=(1,))  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["onnx", "torch", "python"])
def test_every_op_of_every_space_leaves(to: str, tmp_path: Path) -> None:
    network = trained(every_op(), size=(10, 9))
    if to == "onnx":
        pytest.importorskip("onnxscript")
    path = export(network, to, tmp_path / f"network{FORMATS[to]}", fold=True)[0]
    x = images(network, 2)
    if to == "onnx":
        agrees(onnx_session(path).run(None, {"images": x.numpy()})[0], network, x)
    else:
        agrees((torch.export.load(path).module() if to == "torch" else standalone(path)["load"]())(x), network, x)


def test_nothing_but_torch_is_needed(tmp_path: Path) -> None:
    network = some()["cifar"]
    export(network, "python", tmp_path / "alone.py", fold=True)
    export(network, "torch", tmp_path / "network.pt2")
    x = images(network, 2)
    torch.save((x, network(x).detach()), tmp_path / "expected")
    code = (
        "import sys; sys.modules['ddarts_ext'] = None; sys.path.insert(0, '.')\n"
        "import torch, alone\n"
        "x, expected = torch.load('expected')\n"
        "for network in (alone.load(), torch.export.load('network.pt2').module()):\n"
        "    assert (network(x) - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())\n"
        "names = {name.partition('.')[0] for name in sys.modules if name.startswith('ddarts')}\n"
        "assert names == {'ddarts_ext'} and sys.modules['ddarts_ext'] is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_exported_is_for_inference(tmp_path: Path) -> None:
    network = some()["cifar"]
    plain = for_inference(network)
    assert not plain.training
    assert not any(name.startswith("auxiliary") for name, _ in plain.named_modules())
    # The network itself is left as it was.
    assert network.network.auxiliary is not None
    write(tmp_path, network.description, {"last": network.network.state_dict()})
    again = load_network(tmp_path / "weights.safetensors")
    x = images(network, 2)
    agrees(for_inference(again, fold=True)(x), network, x)
    with pytest.raises(ValueError, match="to must be one of onnx, torch, python, safetensors, got 'tflite'"):
        export(network, "tflite", tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="out must be in a folder that exists, got"):
        export(network, "onnx", tmp_path / "none" / "x.onnx")
    with pytest.raises(ValueError, match="out must be a file, got the folder"):
        export(network, "torch", tmp_path)
