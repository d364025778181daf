"""Machine code on disk and in memory: hits, damage, two processes, refused text."""

import os
import subprocess
import sys

import pytest

from kdsl.errors import CompileError, TargetError
from kdsl.runtime import cache, cpu
from kdsl.target import LEVELS

from .machine import HOST

NUMBERS = iter(range(10**6))


def text() -> str:
    """A module that has not been compiled before."""
    return f"define i64 @f() {{\n  ret i64 {next(NUMBERS)}\n}}\n; {os.getpid()}"


def counted(function) -> tuple[int, int]:
    before = cpu.compilations()
    function()
    after = cpu.compilations()
    return after["compiled"] - before["compiled"], after["loaded"] - before["loaded"]


def forget():
    cpu._libraries.clear()


def files(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def test_compiled_once(own_cache):
    module = text()
    assert counted(lambda: cpu.load(module, HOST)) == (1, 0)
    assert counted(lambda: cpu.load(module, HOST)) == (0, 0)
    forget()
    assert counted(lambda: cpu.load(module, HOST)) == (0, 1)
    assert len(files(own_cache)) == 1


DAMAGES = [lambda b: b"", lambda b: b[:40], lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b"x" * 5000]


@pytest.mark.parametrize("damage", DAMAGES, ids=["empty", "short", "cut", "changed", "garbage"])
def test_a_damaged_file_is_compiled_again(own_cache, damage):
    module = text()
    cpu.load(module, HOST)
    (path,) = files(own_cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    forget()
    assert counted(lambda: cpu.load(module, HOST)) == (1, 0)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path / "file"))
    assert counted(lambda: cpu.load(text(), HOST)) == (1, 0)


REFUSED = (
    "",
    "define",
    "define void @f() {\n  %x = add i64 %y, 1\n  ret void\n}",
    "define i64 @f() {\n  ret i32 0\n}",
    "define void @f() {\n  call void @nobody_defines_this()\n  ret void\n}\ndeclare void @nobody_defines_this()",
)


def test_refused_text_leaves_the_cache_as_it_was(own_cache):
    before = cpu.compilations(), dict(cpu._libraries)
    for wrong in REFUSED:
        with pytest.raises(CompileError):
            cpu.load(wrong, HOST)
    assert (cpu.compilations(), cpu._libraries) == before and not files(own_cache)


def test_unknown_function():
    with pytest.raises(KeyError, match="nothing"):
        cpu.load(text(), HOST).address("nothing")


def test_two_processes(own_cache):
    """Several processes that compile the same modules at the same time end with sound files, and the next one loads them all."""
    program = (
        "from kdsl.runtime import cpu; from tests.runtime.machine import HOST\n"
        "for i in range(20): cpu.load(f'define i64 @f() {{ ret i64 {i} }}', HOST).address('f')\n"
        "print(cpu.compilations())"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert all(p.wait(600) == 0 for p in running)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "{'compiled': 0, 'loaded': 20}"
    assert not [p for p in files(own_cache) if p.name.startswith(".")]
    for p in running:
        p.stdout.close()


def test_keys_tell_texts_apart():
    assert cache.key_of("ab", "c") != cache.key_of("a", "bc")


def test_assembly_of_every_level():
    module = "define <16 x float> @f(<16 x float> %x) {\n  %y = fadd <16 x float> %x, %x\n  ret <16 x float> %y\n}"
    assert "zmm" in cpu.asm(module, LEVELS["x86-64-v4"])
    assert "ymm" in cpu.asm(module, LEVELS["x86-64-v3"]) and "zmm" not in cpu.asm(module, LEVELS["x86-64-v3"])
    assert "fadd\tv" in cpu.asm(module, LEVELS["arm64"])


def test_code_for_another_machine_does_not_load():
    other = next(level for level in LEVELS.values() if not cpu.runs_here(level))
    with pytest.raises(TargetError, match=other.level):
        cpu.load(text(), other)
