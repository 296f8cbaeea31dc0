# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration fragments, ``.config`` files, and why a requested symbol did not become what was asked.

The language is that of ``Documentation/kbuild/kconfig-language.rst``; read here is only what it takes to name
the dependency that is off: ``config``, ``if``, ``menu``, ``choice``, ``depends on``, ``select`` and ``source``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError

_SET = re.compile(r"^CONFIG_(\w+)=(.*)$")
_UNSET = re.compile(r"^# CONFIG_(\w+) is not set$")
_TOKEN = re.compile(
    r'\s*(?:(&&|\|\||!=|<=|>=|[!()=<>])|"([^"]*)"|\'([^\']*)\'|(\$\([^()]*(?:\([^()]*\)[^()]*)*\))|([\w./-]+))'
)
_LEVEL = {"n": 0, "m": 1, "y": 2}
_NAME = {0: "n", 1: "m", 2: "y"}


@dataclass(frozen=True)
class Request:
    """One line of a fragment: the symbol without ``CONFIG_``, its value (``n`` for "is not set"), where it stands."""

    symbol: str
    value: str
    origin: str


def parse_config(text: str) -> dict[str, str]:
    """Values of a ``.config``; symbols that are not set or absent are not in the result."""
    return {match[1]: match[2] for line in text.splitlines() if (match := _SET.match(line)) and match[2] != "n"}


def read_fragment(path: Path) -> list[Request]:
    """The requests of one fragment, in order.

    Raises:
        UsageError: the file does not exist, or a line is neither a setting nor a comment.

    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"fragment {path} cannot be read: {error}", hint="name an existing file of CONFIG_... lines"
        ) from error
    requests = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if match := _SET.match(line):
            requests.append(Request(match[1], match[2], f"{path}:{number}"))
        elif match := _UNSET.match(line):
            requests.append(Request(match[1], "n", f"{path}:{number}"))
        elif line and not line.startswith("#"):
            raise UsageError(
                f"{path}:{number}: {line!r} is not a configuration line",
                hint="write CONFIG_NAME=value or # CONFIG_NAME is not set",
            )
    return requests


def merge(fragments: Sequence[Path]) -> dict[str, Request]:
    """All requests of the fragments; of two for one symbol the later fragment's holds.

    Raises:
        UsageError: a fragment is unreadable, or one file asks for two values of a symbol.

    """
    merged: dict[str, Request] = {}
    for path in fragments:
        own: dict[str, Request] = {}
        for request in read_fragment(path):
            before = own.get(request.symbol)
            if before and before.value != request.value:
                raise UsageError(
                    f"CONFIG_{request.symbol} is {before.value} at {before.origin} and {request.value} at "
                    f"{request.origin}",
                    hint="keep one of the two lines",
                )
            own[request.symbol] = request
        merged.update(own)
    return merged


def render(requests: Mapping[str, Request]) -> str:
    """One fragment that asks for all of them, sorted so that equal requests give equal text."""
    lines = []
    for symbol in sorted(requests):
        value = requests[symbol].value
        lines.append(f"# CONFIG_{symbol} is not set" if value == "n" else f"CONFIG_{symbol}={value}")
    return "\n".join(lines) + "\n"


@dataclass
class Definition:
    """One place that defines a symbol: conditions it stands under, its type and prompt, what selects it."""

    where: str
    conditions: list[str] = field(default_factory=list)
    kind: str = ""
    prompt: bool = False
    choice: int | None = None


class Model:
    """What a tree's Kconfig files say about its symbols.

    Args:
        tree: a Linux tree.
        arch: directory below ``arch/`` whose symbols count.

    """

    def __init__(self, tree: Path, arch: str = "x86") -> None:
        self.tree = tree
        self.arch = arch
        self.symbols: dict[str, list[Definition]] = {}
        self.selectors: dict[str, list[str]] = {}
        self._choices = 0
        self._read("Kconfig", [])

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Logical lines: continuations joined, tabs as blanks."""
        whole = ""
        try:
            raw_lines = (self.tree / name).read_text(errors="replace").splitlines()
        except OSError:
            return  # `source` of an absent file is an error to Kconfig itself, which reports it better
        for number, raw in enumerate(raw_lines, 1):
            whole += raw.expandtabs()
            if whole.endswith("\\"):
                whole = whole[:-1] + " "
                continue
            yield number, whole
            whole = ""

    def _read(self, name: str, outer: list[str]) -> None:
        blocks: list[tuple[str, list[str], int | None]] = [("file", outer, None)]
        current: Definition | None = None
        symbol = ""
        help_indent: int | None = None
        for number, line in self._lines(name):
            text = line.strip()
            indent = len(line) - len(line.lstrip())
            if help_indent is not None:
                if not text or (help_indent == 0 and indent > 0) or (0 < help_indent <= indent):
                    help_indent = help_indent or indent
                    continue
                help_indent = None
            if not text or text.startswith("#"):
                continue
            word, _, rest = text.partition(" ")
            rest = rest.strip()
            if word == "help" and not rest:
                help_indent = 0
            elif word in ("config", "menuconfig"):
                symbol = rest
                current = Definition(f"{name}:{number}", list(blocks[-1][1]), choice=blocks[-1][2])
                self.symbols.setdefault(symbol, []).append(current)
            elif word in ("if", "menu", "choice", "comment", "endif", "endmenu", "endchoice", "mainmenu"):
                current = self._block(word, rest, blocks)
            elif word in ("source", "rsource", "osource"):
                current = None
                target = rest.strip("\"'").replace("$(SRCARCH)", self.arch).replace("$SRCARCH", self.arch)
                self._read(target, list(blocks[-1][1]))
            else:
                self._attribute(word, rest, symbol, current, blocks)

    def _block(self, word: str, rest: str, blocks: list[tuple[str, list[str], int | None]]) -> Definition | None:
        """Enter or leave a block; a comment only ends the entry before it."""
        if word.startswith("end"):
            if len(blocks) > 1:
                blocks.pop()
        elif word == "if":
            blocks.append(("if", [*blocks[-1][1], rest], blocks[-1][2]))
        elif word == "menu":
            blocks.append(("menu", list(blocks[-1][1]), None))
        elif word == "choice":
            self._choices += 1
            blocks.append(("choice", list(blocks[-1][1]), self._choices))
        return Definition("comment") if word == "comment" else None

    def _attribute(
        self,
        word: str,
        rest: str,
        symbol: str,
        current: Definition | None,
        blocks: list[tuple[str, list[str], int | None]],
    ) -> None:
        if word == "depends" and rest.startswith("on "):
            conditions = current.conditions if current else blocks[-1][1]
            conditions.append(rest[3:].split(" #")[0].strip())
        elif current is None:
            return
        elif word in ("bool", "tristate", "int", "hex", "string", "def_bool", "def_tristate"):
            current.kind = word.removeprefix("def_")
            if rest and not word.startswith("def_"):
                self._prompt(rest, current)
        elif word == "prompt":
            self._prompt(rest, current)
        elif word == "select":
            target, _, condition = rest.partition(" if ")
            self.selectors.setdefault(target.strip(), []).append(symbol + (f" if {condition}" if condition else ""))

    @staticmethod
    def _prompt(rest: str, current: Definition) -> None:
        current.prompt = True
        text = re.sub(r"^\"(?:[^\"\\]|\\.)*\"|^'[^']*'", "", rest).strip()
        if text.startswith("if "):
            current.conditions.append(text[3:].strip())

    def nearest(self, symbol: str) -> list[str]:
        """Existing symbols with a similar name, best first."""
        return difflib.get_close_matches(symbol, self.symbols, n=3, cutoff=0.6)

    def explain(self, request: Request, config: Mapping[str, str]) -> str:
        """One line that says why ``request`` is not fulfilled by ``config``."""
        got = config.get(request.symbol, "n")
        found = self.symbols.get(request.symbol)
        head = f"CONFIG_{request.symbol}={request.value} ({request.origin}): "
        if not found:
            near = ", ".join(f"CONFIG_{name}" for name in self.nearest(request.symbol))
            return head + "this kernel has no such symbol" + (f"; nearest: {near}" if near else "")
        if request.value == "n" and got != "n":
            forced = [name for name in self.selectors.get(request.symbol, []) if config.get(name.split()[0])]
            by = ", ".join(forced[:4])
            return head + f"it is {got}" + (f", selected by {by}" if by else ": it has a default and no prompt")
        off = [self.unmet(definition, config) for definition in found]
        if all(off):
            return head + f"it is {got}; unmet: " + " or ".join("; ".join(missing) for missing in off)
        if not any(definition.prompt for definition in found):
            by = ", ".join(self.selectors.get(request.symbol, [])[:6])
            return head + f"it is {got}; nobody can set it" + (f", it is selected by {by}" if by else "")
        if winner := self._chosen(found, config):
            return head + f"it is {got}; the choice it belongs to went to CONFIG_{winner}"
        return head + f"it is {got}, though its dependencies hold ({found[0].where})"

    def _chosen(self, found: Sequence[Definition], config: Mapping[str, str]) -> str | None:
        mine = {definition.choice for definition in found} - {None}
        for name, definitions in self.symbols.items():
            if config.get(name) == "y" and any(definition.choice in mine for definition in definitions):
                return name
        return None

    def unmet(self, definition: Definition, config: Mapping[str, str]) -> list[str]:
        """The conjuncts of a definition's conditions that are ``n``, each with the values it hangs on."""
        missing = []
        for condition in definition.conditions:
            for part in _conjuncts(_tokens(condition)):
                if _evaluate(part, config) == 0:
                    names = [text for kind, text in part if kind == "symbol" and text not in _LEVEL]
                    values = ", ".join(f"{name}={config.get(name, 'n')}" for name in dict.fromkeys(names))
                    missing.append(" ".join(text for _, text in part) + (f" ({values})" if values else ""))
        return list(dict.fromkeys(missing))


Token = tuple[str, str]  # ("op" | "string" | "macro" | "symbol", text)


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        kinds = ("op", "string", "string", "macro", "symbol")
        tokens += [(kind, part) for kind, part in zip(kinds, match.groups(), strict=True) if part is not None]
    return tokens


def _conjuncts(tokens: list[Token]) -> list[list[Token]]:
    """Split at top-level ``&&``; an expression with a top-level ``||`` is one part."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token[0] == "op":
            depth += {"(": 1, ")": -1}.get(token[1], 0)
            if depth == 0 and token[1] == "||":
                return [tokens]
            if depth == 0 and token[1] == "&&":
                parts.append([])
                continue
        parts[-1].append(token)
    return [part for part in parts if part]


def _evaluate(tokens: Sequence[Token], config: Mapping[str, str]) -> int:
    """Value of an expression: 0 (n), 1 (m) or 2 (y). What asks the compiler (a macro) counts as y."""
    stream = list(tokens)

    def peek() -> str:
        return stream[0][1] if stream and stream[0][0] == "op" else ""

    def either() -> int:
        value = both()
        while peek() == "||":
            stream.pop(0)
            value = max(value, both())
        return value

    def both() -> int:
        value = single()
        while peek() == "&&":
            stream.pop(0)
            value = min(value, single())
        return value

    def single() -> int:
        if peek() == "!":
            stream.pop(0)
            return 2 - single()
        if peek() == "(":
            stream.pop(0)
            value = either()
            if peek() == ")":
                stream.pop(0)
            return value
        left = operand()
        operator = peek()
        if operator in ("=", "!=", "<", ">", "<=", ">="):
            stream.pop(0)
            return 2 if _compare(left, operator, operand()) else 0
        return _LEVEL.get(left, 0)

    def operand() -> str:
        kind, text = stream.pop(0) if stream else ("symbol", "n")
        if kind == "macro":
            return "y"
        if kind == "string" or text in _LEVEL or re.fullmatch(r"0x[0-9a-fA-F]+|\d+", text):
            return text
        return config.get(text, "n").strip('"')

    return either()


def _compare(left: str, operator: str, right: str) -> bool:
    if operator in ("=", "!="):
        return (left == right) == (operator == "=")
    try:
        a, b = int(left, 0), int(right, 0)
    except ValueError:
        return False
    return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[operator]


def verify(requests: Mapping[str, Request], config: Mapping[str, str], model: Model) -> list[str]:
    """One line for every request that ``config`` does not fulfil; empty when all are.

    A symbol that is asked to be off and does not exist is off.
    """
    problems = []
    for symbol in sorted(requests):
        request = requests[symbol]
        if config.get(symbol, "n") != request.value:
            problems.append(model.explain(request, config))
    return problems
