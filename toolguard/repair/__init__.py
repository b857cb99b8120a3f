"""Gives back the calls of a finished turn that can be proved, and only those."""
