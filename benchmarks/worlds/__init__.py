"""Worlds to judge recovery in, other than the one that it was made in: a real model, damaged."""
