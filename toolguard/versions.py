"""Which versions of other packages toolguard runs with: those that its own metadata names."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def check_versions() -> None:
    """Refuses versions that toolguard does not run with.

    Raises:
        ImportError: a package is too old or too new; the message says which one, and what to do.
    """
    try:
        needed = map(Requirement, requires("toolguard") or ())
    except PackageNotFoundError:
        return  # it is not installed, but on the path: there is nothing to go by
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
