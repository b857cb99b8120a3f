"""Which versions of other packages toolguard runs with: those that its own metadata names."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, requires, version

from packaging.requirements import Requirement

NAME = "toolguard-decoding"
"""What toolguard is called on a package index, where `toolguard` is another project."""


def check_versions() -> None:
    """Refuses what toolguard does not run with, or beside.

    Raises:
        ImportError: a package is too old or too new, or another project has put its files among
            ours; the message says which one, and what to do.
    """
    try:
        needed = map(Requirement, requires(NAME) or ())
    except PackageNotFoundError:
        return  # it is not installed, but on the path: there is nothing to go by
    if _is_mixed():
        raise ImportError(
            "the package index's 'toolguard' is another project, and it is installed in the same "
            f"folder as this one, {NAME}: pip uninstall toolguard {NAME}, then pip install . in "
            "this one's clone"
        )
    for requirement in needed:
        if requirement.marker is not None:
            continue  # an extra's
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            continue  # its own import says so better
        if not requirement.specifier.contains(found, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            raise ImportError(
                f"toolguard runs with {wanted}, and {found} is installed: pip install '{wanted}'"
            )


def _is_mixed() -> bool:
    """Whether a distribution `toolguard` has a module of that name in the folder where ours is."""
    try:
        ours, other = distribution(NAME), distribution("toolguard")
    except PackageNotFoundError:
        return False
    beside = ours.locate_file("") == other.locate_file("")
    # An older, editable install of our own has grammars there, and no module.
    return beside and "toolguard/__init__.py" in map(str, other.files or ())
