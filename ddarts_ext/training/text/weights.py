"""The files of a trained language model: network.json, and weights.safetensors that hold the same in their header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ddarts_ext.data.text import Corpus
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.recurrent import LanguageModel, of_genotype
from ddarts_ext.runs.files import replacing, write_whole
from ddarts_ext.training.description import FILE
from ddarts_ext.training.text.config import TextTrainConfig
from ddarts_ext.training.weights import WEIGHTS, stamp


def write(
    folder: Path,
    network: LanguageModel,
    genotype: Genotype,
    corpus: Corpus,
    config: TextTrainConfig,
    source: str,
    perplexity: float,
) -> None:
    """Write the trained network as a thing of its own, whole or not at all."""
    description: dict[str, Any] = {
        "kind": "text",
        "genotype": genotype.to_json(),
        "channels": config.channels,
        "words": corpus.kind,
        "vocabulary": list(corpus.vocabulary),
        **stamp(data=source, perplexity=perplexity),
    }
    text = json.dumps(description)
    with replacing(folder / WEIGHTS["last"]) as file:
        state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
        file.write(save(state, {"network": text, "genotype": json.dumps(genotype.to_json())}))
    write_whole(folder / FILE, (json.dumps(description, indent=2) + "\n").encode())


def load_language_model(run: str | Path) -> tuple[LanguageModel, tuple[str, ...]]:
    """The trained language model in the folder of a training, or in a file of weights, and its vocabulary.

    Raises ValueError or OSError in one line for what is none.
    """
    path = Path(run)
    file = path / WEIGHTS["last"] if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"load_language_model: {path} must have {WEIGHTS['last']}, which is not there")
    try:
        with safe_open(file, "pt") as content:
            header = dict(content.metadata() or {})
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_language_model: {file} is no file of weights that can be read: {error}") from error
    description = json.loads(header.get("network", "{}"))
    if description.get("kind") != "text":
        raise ValueError(f"load_language_model: {path} must be a trained language model, got another network")
    vocabulary = tuple(description["vocabulary"])
    network = of_genotype(Genotype.from_json(description["genotype"]), len(vocabulary), int(description["channels"]))
    network.load_state_dict(tensors)
    return network.eval(), vocabulary
