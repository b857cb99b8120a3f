"""The drift alarm of a server: its turns against the profile of the healthy model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ProfileError, ToolguardError
from ...formats.wire_format import WireFormat
from ...policy.drift import Drift
from ...policy.profile import Profile
from .environment import PROFILE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def drift_of(tokenizer: PreTrainedTokenizerBase) -> Drift | None:
    """The detector that the environment asks for; None: no profile is named.

    Raises:
        ProfileError: the profile is broken, of another tokenizer, or too small.
    """
    name = os.environ.get(PROFILE)
    if not name:
        return None
    try:
        wire_format = WireFormat.load(Profile.load(Path(name)).wire_format)
        return Drift(Profile.load(Path(name), wire_format, tokenizer))
    except ToolguardError as error:
        raise ProfileError(f"{PROFILE}={name}: {error}") from error
