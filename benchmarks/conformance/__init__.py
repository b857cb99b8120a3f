"""toolguard held to a peer's suite: the fixtures of the package `canitoolcall`, by its verdicts."""
