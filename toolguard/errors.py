"""Every error that toolguard raises on purpose.

ToolguardError
├── FormatError      a wire format is unknown, malformed, or cannot be recognised
├── ToolsetError     a tool or its schema is malformed
├── TokenizerError   a tokenizer cannot carry the format (no turn end, not a fast tokenizer)
├── RequestError     a request asks for what cannot be served (tool choice, budget, policy)
├── CaseError        a case file has a broken line
├── ProfileError     a profile is broken, of another model, or too small
├── RunError         a training run has nothing to watch, or a journal of other settings
├── RowError         a row has no turn or no tools; a file of rows cannot be read or gone on with
└── StateError       a guard state was driven off its own history

Each message says what was wrong, where, and what to do about it.
"""


class ToolguardError(Exception):
    """Base class of all toolguard errors."""


class FormatError(ToolguardError):
    """A wire format is unknown, malformed, or cannot be recognised from a tokenizer."""


class ToolsetError(ToolguardError, ValueError):
    """A tool definition or its JSON schema is malformed."""


class TokenizerError(ToolguardError, ValueError):
    """The tokenizer cannot carry the wire format."""


class RequestError(ToolguardError, ValueError):
    """A request parameter is impossible: unknown tool choice, budget too small, bad policy."""


class CaseError(ToolguardError, ValueError):
    """A case file has a broken line."""


class ProfileError(ToolguardError, ValueError):
    """A profile is broken, of another version or model, or too small for what is asked of it."""


class RunError(ToolguardError, ValueError):
    """A training run has nothing to watch, or what was watched before does not fit."""


class RowError(ToolguardError, ValueError):
    """A row has no turn or no tools, or a file of rows cannot be read, written or gone on with."""


class StateError(ToolguardError, RuntimeError):
    """A guard state, or a processor that holds some, was driven off its own history."""
