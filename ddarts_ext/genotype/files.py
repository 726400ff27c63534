"""Genotype files: finding, reading and writing them."""

import json
import os
from importlib import resources

from ddarts_ext.genotype.checks import shown
from ddarts_ext.genotype.json_form import parse_json
from ddarts_ext.genotype.text import MAX_TEXT

_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe\0\0": "utf-32-le", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
"""Byte order marks; a longer one before its beginning."""


_OF_RUNS = ("config.json", "network.json", "comparison.json")
"""Files of runs that people take for the run."""


def architectures() -> tuple[str, ...]:
    """The names of the built-in architectures."""
    folder = resources.files("ddarts_ext.genotype") / "architectures"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json")))


def image_architectures() -> tuple[str, ...]:
    """Those of networks for images, without the recurrent cells."""
    return tuple(name for name in architectures() if not name.endswith("_RNN"))


def text_of(source: str | os.PathLike[str]) -> tuple[str, str]:
    """The text behind a path, `FILE#NAME`, a built-in name or text itself, and the name within it that is meant."""
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"genotype: must be a file, a name or the text of one, got {type(source).__name__}")
    given = os.fspath(source)
    path, member = _split(given)
    if path:
        text = decoded(path)
        return _member(text, path, member, given) if text.lstrip().startswith("{") else (text, member)
    known = {name.lower(): name for name in architectures()}
    if given.lower() in known:
        name = known[given.lower()]
        return (resources.files("ddarts_ext.genotype") / "architectures" / f"{name}.json").read_text("utf-8"), ""
    if any(mark in given for mark in "(|{[\n"):
        return given, ""
    if os.path.isfile(os.path.join(given, "config.json")):
        raise ValueError(
            f"genotype: the run in {given} has no genotype yet, it is written at the end; to go on: "
            f"ddarts search --resume --out {given}"
        )
    if os.path.isdir(given):
        raise ValueError(f"genotype: the folder {shown(given)} must be that of a run, got one without genotype.json")
    raise ValueError(
        f"genotype: must be a file or one of {', '.join(known.values())}, or the text of a genotype, got {shown(given)}"
    )


def _split(given: str) -> tuple[str, str]:
    """The file in a source, empty if there is none, and what follows it after a #, which names may have as well."""
    end = len(given)
    for _ in range(50):
        for path in (os.path.join(given[:end], "genotype.json"), given[:end]):
            if os.path.isfile(path):
                return path, given[end + 1 :]
        end = given.rfind("#", 0, end)
        if end <= 0:
            break
    return "", ""


def _member(text: str, path: str, member: str, given: str) -> tuple[str, str]:
    """The genotype in JSON text that is one, or that holds several by name; other text as it is."""
    try:
        data = parse_json(text, path)
    except ValueError:
        # Python's dictionaries look like JSON from afar.
        if "'" not in text:
            raise
        return text, member
    if os.path.basename(path) in _OF_RUNS and "genes" not in data and not member:
        folder = os.path.dirname(path) or "."
        raise ValueError(
            f"genotype: {path} describes a run and is no genotype: give the folder {folder}, or "
            f"{os.path.join(folder, 'genotype.json')}"
        )
    if "genes" in data or "normal" in data:
        if member:
            raise ValueError(f"genotype: {path} must be given without #{member[:100]}, as it holds one genotype")
        return text, ""
    if member in data:
        found = data[member]
        return found if isinstance(found, str) else json.dumps(found), ""
    names = ", ".join([name[:100] for name in data][:30]) or "none"
    raise ValueError(f"genotype: {path} must be a genotype or FILE#NAME with one of {names}, got {shown(given)}")


def decoded(path: str | os.PathLike[str], subject: str = "genotype") -> str:
    """The text of a file, in UTF-8 or, as some systems write what a command prints, in UTF-16."""
    with open(path, "rb") as file:
        content = file.read(4 * MAX_TEXT + 1)
    mark = next((mark for mark in _BOMS if content.startswith(mark)), b"")
    encoding = _BOMS.get(mark, "utf-8")
    if not mark and b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{subject}: {os.fspath(path)} must be a text file: {error}") from error
    if len(text) > MAX_TEXT:
        raise ValueError(f"{subject}: {os.fspath(path)} must have at most {MAX_TEXT} characters")
    return text
