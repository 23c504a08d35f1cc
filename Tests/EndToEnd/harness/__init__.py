# harness
# Starts the built panelind with a scripted worker, reads its log, and looks at processes and ports from outside.
# Read daemon.py first.

from .daemon import Daemon, Placement, build_tool, binaries, scripted_worker, seconds
from .network import HTTPAnswer, accepts, free_port, http, raw_http
from .processes import (
    Process, carriers, children, command_line, descendants, environment_of, fd_count, is_alive, parent,
    process_group, rss_bytes, signal_masks, state, zombies,
)
from .service import Journal, Receiver, in_namespace
from .waiting import PATIENCE, TimedOut, wait_until

__all__ = [name for name in dir() if not name.startswith("_")]
