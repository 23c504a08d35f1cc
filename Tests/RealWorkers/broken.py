# broken.py
# An application that fails at import, as a forgotten dependency does.
# Read README.md before it.
import a_module_that_nobody_installed  # noqa: F401


def app(*_):
    raise AssertionError("never reached: the import fails")
