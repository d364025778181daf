"""PTX text to records: a module's kernels, functions and variables, and one Instruction for each statement.

In:  the text of a PTX module.  Out: Module; names that an inner { } declares are renamed apart, so that a body is one flat list.
Source lines come from .loc where the PTX has it (lineinfo), else an instruction knows its PTX line only.
Read next: flatten.py, which puts called functions in place.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from kdsl.errors import EmulatorError

BYTES = {"8": 1, "16": 2, "32": 4, "64": 8, "128": 16}


@dataclass(frozen=True)
class Instruction:
    """One statement: `@!%p1 add.s32 %r1, %r2, 3` is op (add, s32), operands (%r1, %r2, 3), predicate %p1, negated."""

    op: tuple[str, ...]
    operands: tuple[str, ...]
    predicate: str | None
    negated: bool
    line: int  # of the PTX
    place: tuple[str, int] | None  # file and line of the source

    @property
    def text(self) -> str:
        guard = f"@{'!' if self.negated else ''}{self.predicate} " if self.predicate else ""
        return f"{guard}{'.'.join(self.op)} {', '.join(self.operands)}".strip()


@dataclass(frozen=True)
class Variable:
    """A .shared, .local, .global, .const or .param variable; `size` 0 is memory whose size the launch gives."""

    name: str
    space: str
    align: int
    size: int
    initial: bytes | None = None


@dataclass
class Function:
    """A kernel or a device function."""

    name: str
    is_kernel: bool
    parameters: list[Variable] = field(default_factory=list)
    results: list[Variable] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)  # %r1, or a prefix "%r<" for a whole range -> type
    variables: list[Variable] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)  # .branchtargets
    most_threads: int | None = None


@dataclass
class Module:
    text: str
    target: str
    functions: dict[str, Function]
    variables: list[Variable]


_TOKEN = re.compile(r'\n|;|\{|\}|"[^"\n]*"|[^\n;{}"]+')
_NAME = r"[A-Za-z_$%][\w$@%]*"
_WORD = re.compile(r"(?<![\w$@%.])[A-Za-z_$%][\w$@%]*")
_VARIABLE = re.compile(
    r"\.(shared|local|global|const|param)\s+(.*?)\.(v[248]\s+)?\.?([busf](?:8|16|32|64|128)|f16x2|bf16|pred)\s+(.*)", re.S
)


@lru_cache
def type_bytes(name: str) -> int:
    """How many bytes a PTX type takes."""
    if name == "pred":
        return 1
    found = re.search(r"(\d+)(x(\d))?$", name)
    assert found is not None, name
    return BYTES[found.group(1)] * int(found.group(3) or 1)


def split(text: str) -> list[str]:
    """Operands between commas that stand in no bracket."""
    out, depth, current = [], 0, ""
    for c in text:
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            out.append(current.strip())
            current = ""
        else:
            current += c
    return [*out, current.strip()] if current.strip() else out


def parse(text: str) -> Module:
    """The records of a PTX module."""
    target = re.search(r"^\s*\.target\s+(\w+)", text, re.M)
    module = Module(text, target.group(1) if target else "", {}, [])
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', text, re.M))
    files = {n: re.sub(r"^.*/(<[^/]*>)$", r"\1", path) for n, path in files.items()}  # source that lies in no file
    statements = _statements(text, files)
    for kind, content, line, _ in statements:
        if kind == "open" and content.startswith(".section"):
            _skip(statements)
        elif kind == "open" and re.search(r"\.(entry|func)\b", content):
            function = _header(content)
            _body(function, statements)
            module.functions[function.name] = function
        elif kind == "statement":
            module.variables += _variables(content)
        else:
            raise EmulatorError(f"line {line} of the PTX is not understood: {content[:60]}", location=False)
    return module


def _statements(text: str, files: dict[str, str]) -> Iterator[tuple[str, str, int, tuple[str, int] | None]]:
    """(statement | open | close, text, PTX line, source place), directives of one line taken out."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)
    lines = []
    places: dict[int, tuple[str, int] | None] = {}
    place = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.split("//", 1)[0] if '"' not in line else line
        found = re.match(r"\s*\.loc\s+(\d+)\s+(\d+)", line)
        if found:
            place = (files.get(found.group(1), "?"), int(found.group(2)))
        if re.match(r"\s*\.(loc|file|version|target|address_size)\b", line):
            line = ""
        places[number] = place
        lines.append(line)
    current, start, number, depth = "", 0, 1, 0
    for token in _TOKEN.findall("\n".join(lines)):
        here = current.strip()
        if token == "\n":
            number += 1
            current += " "
        elif token == ";" and depth == 0:
            if here:
                yield "statement", here, start or number, places[start or number]
            current, start = "", 0
        elif token == "{" and depth == 0 and _opens(here):
            yield "open", here, start or number, places[number]
            current, start = "", 0
        elif token == "}" and depth == 0:
            yield "close", here, number, places[number]
            current, start = "", 0
        else:
            depth += (token == "{") - (token == "}")
            if not here and token.strip():
                start = number
            current += token


def _opens(before: str) -> bool:
    """Whether a { begins a scope or a body, and is no operand or initial value."""
    return not before or before.endswith(":") or bool(re.search(r"\.(entry|func)\b|^\.section", before))


def _skip(statements: Iterator[tuple[str, str, int, tuple[str, int] | None]]) -> None:
    depth = 1
    while depth:
        kind = next(statements)[0]
        depth += (kind == "open") - (kind == "close")


def _header(text: str) -> Function:
    found = re.search(rf"\.(entry|func)\s*(?:\.noreturn\s*)?(?:\((.*?)\)\s*)?({_NAME})\s*(?:\((.*?)\))?\s*([^()]*)$", text, re.S)
    if found is None:
        raise EmulatorError(f"a header that is not understood: {text[:80]}", location=False)
    kind, results, name, parameters, rest = found.groups()
    function = Function(name, kind == "entry")
    function.parameters = [v for p in split(parameters or "") for v in _variables(p)]
    function.results = [v for p in split(results or "") for v in _variables(p)]
    limit = re.search(r"\.(?:maxntid|reqntid)\s+([\d,\s]+)", rest)
    if limit:
        function.most_threads = 1
        for n in limit.group(1).split(","):
            function.most_threads *= int(n)
    return function


def _variables(text: str) -> list[Variable]:
    """The variables that a declaration makes; none for declarations of functions and other directives."""
    found = _VARIABLE.search(text)
    if found is None or re.search(r"\.(entry|func|callprototype)\b", text.split("=")[0]):
        return []
    space, attributes, vector, kind, names = found.groups()
    align = re.search(r"\.align\s+(\d+)", attributes)
    each = type_bytes(kind) * int((vector or "v1").strip()[1:])
    out = []
    for part in split(re.sub(r"\.ptr(\s*\.\w+)*(\s*\.align\s+\d+)?", "", names)):
        declared, _, value = part.partition("=")
        name, *sizes = re.split(r"[\[\]]+", declared.strip().rstrip("]"))
        count = 1
        for n in sizes:
            count *= int(n or 0)
        initial = _initial(value.strip(), type_bytes(kind), kind, each * count) if value else None
        out.append(Variable(name.strip(), space, int(align.group(1)) if align else each, each * count, initial))
    return out


def _initial(value: str, each: int, kind: str, size: int) -> bytes | None:
    words = [w.strip() for w in re.sub(r"[{}]", " ", value).split(",") if w.strip()]
    if any(re.match(r"[A-Za-z_$]", w) for w in words):
        raise EmulatorError(f"a variable that begins with an address: {value[:40]}", location=False)
    data = b"".join((literal(w, kind) & ((1 << 8 * each) - 1)).to_bytes(each, "little") for w in words)
    return data.ljust(size, b"\0")


def literal(text: str, kind: str) -> int:
    """The bits of a constant: 12, -3, 0x1F, 0f3F800000, 0d3FF0000000000000, 1.5."""
    if re.match(r"0[fFdD][0-9a-fA-F]+$", text):
        bits = int(text[2:], 16)
        if text[1] in "dD" and kind == "f32":
            return int.from_bytes(struct.pack("<f", struct.unpack("<d", bits.to_bytes(8, "little"))[0]), "little")
        if text[1] in "fF" and kind == "f64":
            return int.from_bytes(struct.pack("<d", struct.unpack("<f", bits.to_bytes(4, "little"))[0]), "little")
        return bits
    text = text.rstrip("U")
    if kind in ("f16", "f32", "f64") and not re.match(r"-?0[xX]", text):
        code = {"f16": "<e", "f32": "<f", "f64": "<d"}[kind]
        return int.from_bytes(struct.pack(code, float(text)), "little")
    if re.match(r"-?0[0-7]+$", text):
        return int(text, 8)
    return int(text, 0)


class _Scope:
    """The names that one { } declares, and where its instructions begin."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.names: set[str] = set()
        self.prefixes: set[str] = set()


def _body(function: Function, statements: Iterator[tuple[str, str, int, tuple[str, int] | None]]) -> None:
    """Fill the function from the statements up to the brace that ends it."""
    scopes = [_Scope(0)]
    number = 0
    for kind, content, line, place in statements:
        while found := re.match(rf"({_NAME})\s*:(?!:)\s*", content):
            function.labels[found.group(1)] = len(function.code)
            scopes[-1].names.add(found.group(1))
            content = content[found.end() :]
            if content.startswith(".branchtargets"):
                function.tables[found.group(1)] = split(content.split(None, 1)[1])
        if kind == "open":
            scopes.append(_Scope(len(function.code)))
        elif kind == "close":
            number += 1
            scope = scopes.pop()
            if not scopes:
                return
            _rename(function, scope, number)
        elif content.startswith(".reg"):
            _registers(function, content, scopes[-1])
        elif content.startswith((".shared", ".local", ".param", ".const", ".global")):
            new = _variables(content)
            function.variables += new
            scopes[-1].names |= {v.name for v in new}
        elif content and not content.startswith("."):
            function.code.append(_instruction(content, line, place))


def _registers(function: Function, text: str, scope: _Scope) -> None:
    found = re.match(r"\.reg\s+(?:\.v[24]\s+)?\.(\w+)\s+(.*)", text, re.S)
    assert found is not None, text
    for name in split(found.group(2)):
        prefix, ranged, _ = name.partition("<")
        prefix = prefix.strip()
        function.registers[f"{prefix}<" if ranged else prefix] = found.group(1)
        (scope.prefixes if ranged else scope.names).add(prefix)


def _instruction(text: str, line: int, place: tuple[str, int] | None) -> Instruction:
    text = " ".join(text.split())
    found = re.match(rf"@(!?)\s*({_NAME})\s+", text)
    predicate, negated = (found.group(2), bool(found.group(1))) if found else (None, False)
    op, _, rest = (text[found.end() :] if found else text).partition(" ")
    return Instruction(tuple(op.split(".")), tuple(split(rest)), predicate, negated, line, place)


def _rename(function: Function, scope: _Scope, number: int) -> None:
    """Give what an inner scope declares names of its own."""
    if not scope.names and not scope.prefixes:
        return

    def new(name: str) -> str:
        if name in scope.names:
            return f"{name}@{number}"
        found = re.match(r"(.*?)(\d+)$", name)
        if found and found.group(1) in scope.prefixes:
            return f"{found.group(1)}@{number}@{found.group(2)}"
        return name

    def renamed(text: str) -> str:
        return _WORD.sub(lambda m: new(m.group()), text)

    for i in range(scope.start, len(function.code)):
        old = function.code[i]
        function.code[i] = replace(
            old,
            operands=tuple(renamed(o) for o in old.operands),
            predicate=None if old.predicate is None else new(old.predicate),
        )
    for name in scope.names:
        tables: tuple[dict[str, Any], ...] = (function.labels, function.registers, function.tables)
        for table in tables:
            if name in table:
                table[new(name)] = table.pop(name)
    function.tables = {k: [new(x) for x in v] for k, v in function.tables.items()}
    for prefix in scope.prefixes:
        function.registers[f"{prefix}@{number}@<"] = function.registers.pop(f"{prefix}<")
    function.variables = [replace(v, name=new(v.name)) for v in function.variables]
