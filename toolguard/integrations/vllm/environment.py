"""The environment variables that the plugin reads: vLLM has no flags for what a plugin wants.

vLLM hands them on to all of its processes. `toolguard serve` sets them from flags of its own.
"""

from __future__ import annotations

MODE = "TOOLGUARD_MODE"
"""Who holds the turns to their grammar: `processor` or `engine`; see `setup.Setup`."""
PROFILE = "TOOLGUARD_PROFILE"
"""A profile of the healthy model (`toolguard profile`): turns are watched for drift against it."""
LOG_TEXT = "TOOLGUARD_LOG_TEXT"
"""`1`: the log line of an intervened turn holds the turn's text, too."""
REFRESH = "TOOLGUARD_REFRESH"
"""Seconds between two readings of the engine's figures for `/metrics`; 5 unless given."""
