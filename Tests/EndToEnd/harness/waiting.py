# waiting.py
# Waits for something to become true, within a bound.
# The bound is large, for slow machines; a test that passes never waits for all of it.

import os
import time

# Seconds after which what must come is late. The machine of the tests may be slow and shared.
PATIENCE = 30.0 * float(os.environ.get("PANELIND_TEST_SLOWNESS", "1"))


class TimedOut(AssertionError):
    """Something did not come."""


def wait_until(condition, what, timeout=PATIENCE, every=0.01):
    """Returns the first true value of `condition()`, or raises TimedOut naming `what`."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimedOut(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(every)
