"""Compiles a function for a GPU, runs it in the loop interpreter and on the emulator, and compares both with its meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import kdsl as kd
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.loops import Program
from kdsl.ir.meaning import bind_sizes
from kdsl.ir.tensor import Function
from kdsl.schedule.gpu.program import schedule_gpu
from kdsl.target import parse_target
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.group import group
from kdsl.transforms.prune import prune
from kdsl.transforms.simplify import simplify
from tests.gpu_target.on_emulator import run
from tests.whole import compare, cotangents, strides

TARGET = parse_target("cuda:sm_80")


def scheduled(function: Function, *arrays: np.ndarray) -> Program:
    """The kernels of a program."""
    expanded = expand(simplify(function))
    pairs = zip(expanded.parameters, map(strides, arrays), strict=True)
    given = {p: s for p, s in pairs if s is not None}
    program = replace(schedule_gpu(group(expanded, TARGET, given), TARGET), facts=function.facts)
    verify_loops(program)
    return program


def agrees(function: Function, arrays: Any, on: tuple[Callable, ...] = (interpret, run)) -> Program:
    """The scheduled program gives what the function means, in each of these ways to run it."""
    sizes = bind_sizes(function, arrays)
    program = scheduled(function, *arrays)
    for way in on:
        results = way(program, *arrays, sizes=sizes)
        compare(results[: len(function.results)], function, arrays, f"{way.__module__}:")
    return program


def check(f: Callable, *arrays: Any, types: Any = None, on: tuple[Callable, ...] = (interpret, run)) -> Program:
    """`agrees` for a Python function."""
    return agrees(traced(f, *arrays, types=types), arrays, on)


def traced(f: Callable, *arrays: Any, types: Any = None) -> Function:
    kernel = kd.kernel(f, types=types) if types else kd.kernel(f)
    return kernel.traced(kernel.read(arrays, {})).function


def check_gradients(f: Callable, *arrays: Any, types: Any = None, on: tuple[Callable, ...] = (interpret, run)) -> Program:
    """The gradients of a function by all its floating arguments."""
    function = traced(f, *arrays, types=types)
    derived = prune(simplify(vjp(simplify(function))))
    return agrees(derived, [*arrays, *cotangents(function, arrays)], on)
