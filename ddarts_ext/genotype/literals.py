"""Values out of printed Python: strings, numbers, lists, dictionaries, range(...). They are read, never evaluated.

Not by `ast`: text of strangers may nest as deep and grow as large as it likes, and a printed call may stand amid a log.
"""

import re
from typing import Any, NoReturn

from ddarts_ext.genotype.checks import MAX_NODES

MAX_VALUES = 500_000
MAX_DEPTH = 20
_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(r"""'([^'\\\n]{0,100})'|"([^"\\\n]{0,100})\"""")
_NUMBER = re.compile(r"[+-]?(?:\d{1,18}(?![\d.eE])|(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?)(?!\w)")
_NAME = re.compile(r"[A-Za-z_]\w{0,99}(?:\.\w{1,99}){0,5}")
_KEYWORD = re.compile(r"([A-Za-z_]\w{0,99})\s{0,99}=(?!=)")
_CONSTANTS = {"None": None, "True": True, "False": False, "null": None, "true": True, "false": False}
_SCALARS = re.compile(r"(?:np\.|numpy\.)?(?:u?int(?:8|16|32|64|p)?|float(?:16|32|64)|str)_?")
_LISTS = ("list", "tuple", "array", "np.array", "numpy.array", "tensor", "torch.tensor")
_CLOSING = {"[": "]", "(": ")", "{": "}"}


class Reader:
    """Reads values one by one from a place in a text on. Raises ValueError that names the place and the line."""

    def __init__(self, text: str, position: int = 0) -> None:
        self.text, self.position, self._count = text, position, 0

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call whose opening parenthesis is next: positional ones, and those by keyword."""
        self._expect("(", "the text")
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        while not self._take(")"):
            if keyword := _KEYWORD.match(self.text, self.position):
                self.position = keyword.end()
                if keyword[1] in keywords:
                    raise ValueError(f"genotype: the text must have {keyword[1]}= once")
                keywords[keyword[1]] = self.value(keyword[1])
                place = keyword[1]
            else:
                place = f"argument {len(arguments)}"
                arguments.append(self.value(place))
            self._comma(")", place)
        return arguments, keywords

    def value(self, place: str, depth: int = 0) -> Any:
        """The value that is next; lists for tuples."""
        self._space()
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"{MAX_VALUES} values" if depth <= MAX_DEPTH else f"{MAX_DEPTH} levels"
            raise ValueError(f"genotype: {place[:200]} must be of at most {limit}, text line {self._line()}")
        if string := _STRING.match(self.text, self.position):
            self.position = string.end()
            return string[1] if string[1] is not None else string[2]
        if number := _NUMBER.match(self.text, self.position):
            self.position = number.end()
            return float(number[0]) if re.search(r"[.eE]|\d{19}", number[0]) else int(number[0])
        opening = self.text[self.position : self.position + 1]
        if opening and opening in "[(":
            return self._list(opening, place, depth)
        if opening == "{":
            return self._dictionary(place, depth)
        if name := _NAME.match(self.text, self.position):
            return self._named(name, place, depth)
        return self._refuse(place)

    def _list(self, opening: str, place: str, depth: int) -> list[Any]:
        self._expect(opening, place)
        values: list[Any] = []
        while not self._take(_CLOSING[opening]):
            inner = f"{place}[{len(values)}]"
            values.append(self.value(inner, depth + 1))
            self._comma(_CLOSING[opening], inner)
        return values

    def _dictionary(self, place: str, depth: int) -> dict[str, Any]:
        self._expect("{", place)
        values: dict[str, Any] = {}
        while not self._take("}"):
            key = self.value(place, depth + 1)
            if not isinstance(key, str):
                self._refuse(place)
            self._expect(":", key)
            values[key] = self.value(key, depth + 1)
            self._comma("}", key)
        return values

    def _named(self, name: re.Match[str], place: str, depth: int) -> Any:
        """A constant, a number of NumPy's, or a list or range by name."""
        if name[0] in _CONSTANTS:
            self.position = name.end()
            return _CONSTANTS[name[0]]
        start, self.position = self.position, name.end()
        scalar = _SCALARS.fullmatch(name[0]) is not None
        if scalar or name[0] in _LISTS or name[0] == "range":
            values = self._list("(", place, depth) if self.text.startswith("(", self.position) else []
            if name[0] == "range" and 1 <= len(values) <= 3 and all(type(value) is int for value in values):
                return self._range(place, values)
            if len(values) == 1 and isinstance(values[0], (int, float, str) if scalar else list):
                return values[0]
        self.position = start
        return self._refuse(place)

    def _range(self, place: str, values: list[int]) -> list[int]:
        if len(values) == 3 and values[2] == 0:
            raise ValueError(f"genotype: {place} must have a step that is not 0, text line {self._line()}")
        nodes = range(*values)
        # A length beyond what the machine counts has no len().
        if nodes[MAX_NODES:]:
            raise ValueError(f"genotype: {place} must be a range of at most {MAX_NODES}, text line {self._line()}")
        return list(nodes)

    def _space(self) -> None:
        space = _SPACE.match(self.text, self.position)
        self.position = self.position if space is None else space.end()

    def _take(self, mark: str) -> bool:
        self._space()
        if not self.text.startswith(mark, self.position):
            return False
        self.position += len(mark)
        return True

    def _expect(self, mark: str, place: str) -> None:
        if not self._take(mark):
            self._broken(place, mark)

    def _comma(self, closing: str, place: str) -> None:
        self._space()
        if not self.text.startswith(closing, self.position) and not self._take(","):
            if self.position >= len(self.text):
                self._broken(place, closing)
            self._refuse(place)

    def _broken(self, place: str, mark: str) -> NoReturn:
        raise ValueError(
            f"genotype: text line {self._line()}: expected {mark!r} after {place[:200]}, got {self._next()}"
        )

    def _refuse(self, place: str) -> NoReturn:
        if self.position >= len(self.text):
            self._broken(place, "a value")
        raise ValueError(
            f"genotype: {place[:200]} must be a name, a number, a list or range(...), got {self._next()} in text line "
            f"{self._line()}"
        )

    def _next(self) -> str:
        found = self.text[self.position : self.position + 40].split("\n")[0]
        return found or "the end of the text"

    def _line(self) -> int:
        return self.text.count("\n", 0, self.position) + 1
