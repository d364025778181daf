"""What the CPU's schedules are tested with, under the schedules for GPUs."""

from tests.schedule.test_any_program import *  # noqa: F403
from tests.schedule.test_rows import *  # noqa: F403
from tests.schedule.test_scatter import *  # noqa: F403
