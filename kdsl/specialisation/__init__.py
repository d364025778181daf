"""specialisation/: from a kernel and the arguments of a call to a compiled program, and the same again without a detour.

    program.py     one compiled program with the structure of its results and what each call must bind and check
    targets.py     what a call is compiled for
    numbers.py     which named sizes of a call are compiled as numbers
    choice.py      both, and the key under which a program is kept
    programs.py    all that one kernel has been compiled for
    short_way.py   calls like one that was made before go straight to native code

Programs are kept by what they compute, never by name: two specialisations that trace to one program share its code.
Read before: frontend/signature.py, pipeline.py. Read next: kernel.py, gradients/.
"""

from kdsl.specialisation.choice import Choice, choose
from kdsl.specialisation.numbers import Numbers, numbers_of
from kdsl.specialisation.program import Specialisation, sizes_of
from kdsl.specialisation.programs import Specialisations
from kdsl.specialisation.short_way import ShortWay
from kdsl.specialisation.targets import compiler, target_for, target_named, target_of, wants_tuning

__all__ = [
    "Choice", "Numbers", "ShortWay", "Specialisation", "Specialisations", "choose", "compiler", "numbers_of", "sizes_of",
    "target_for", "target_named", "target_of", "wants_tuning",
]  # fmt: skip
