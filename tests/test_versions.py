"""Versions that toolguard does not run with are refused when it is imported."""

from __future__ import annotations

import pytest

from toolguard import versions


def test_what_is_installed_will_do() -> None:
    versions.check_versions()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = versions.version
    monkeypatch.setattr(versions, "version", lambda name: "1.1.9" if name == "lark" else real(name))
    with pytest.raises(ImportError, match=r"runs with lark.*, and 1\.1\.9 is installed: pip"):
        versions.check_versions()
