"""What toolguard does not run with, or beside, is refused when it is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolguard import versions


def install(folder: Path, name: str, needs: str = "", files: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    (info / "METADATA").write_text(about + (f"Requires-Dist: {needs}\n" if needs else ""))
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{files}")


def test_what_is_installed_will_do() -> None:
    versions.check_versions()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, versions.NAME, needs="lark>=1.2.2,<2")
    install(tmp_path, "lark")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"runs with lark.*, and 1\.0 is installed: pip"):
        versions.check_versions()


@pytest.mark.parametrize(
    ("files", "mixed"),
    [
        ("toolguard/__init__.py,,\n", True),
        ("_editable.pth,,\ntoolguard/grammars/hermes.lark,,\n", False),
    ],
)
def test_the_other_toolguard_in_the_same_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: str, mixed: bool
) -> None:
    install(tmp_path, versions.NAME)
    install(tmp_path, "toolguard", files=files)
    monkeypatch.syspath_prepend(tmp_path)
    if mixed:
        with pytest.raises(ImportError, match=r"another project.*pip uninstall toolguard"):
            versions.check_versions()
    else:
        versions.check_versions()
