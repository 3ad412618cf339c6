"""How many examples Hypothesis draws: the same ones in every run, or more of them under `slow`."""

import signal

from hypothesis import HealthCheck, settings

# A shell starts what it runs in the background with interrupts ignored, and so would be the
# programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.filter_too_much, HealthCheck.too_slow],
}
settings.register_profile("default", max_examples=25, derandomize=True, **COMMON)
settings.register_profile("slow", max_examples=300, **COMMON)
settings.load_profile("default")
