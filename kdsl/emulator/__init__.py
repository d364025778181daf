"""Runs PTX on the CPU, all threads at once with NumPy, and finds the mistakes that a GPU would not tell (docs/emulator.md).

Read in this order: parse, flatten, registers, memory, races, wave, instructions, one file for each family of instructions,
kernel, emulator.
"""

from kdsl.emulator.bulk import TensorMap
from kdsl.emulator.emulator import Emulator
from kdsl.emulator.memory import Buffer

__all__ = ["Buffer", "Emulator", "TensorMap"]
