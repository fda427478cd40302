"""Damaged checkpoints are told from whole ones."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from pixbench.checkpoints import damage, write_checkpoint


def test_a_whole_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "file.pth", {"w": torch.arange(20.0)})
    assert damage(tmp_path / "file.pth") == ""


@pytest.mark.parametrize(("content", "said"), [(b"", "it is empty"), (b"PK\x03\x04 and so on", "no whole archive")])
def test_what_is_no_archive(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    assert said in damage(tmp_path / "file.pth")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        damage(tmp_path / "file.pth")


def test_no_changed_byte_changes_what_is_read(tmp_path: Path) -> None:
    """Either the checksums or the reader notice it, or it is a byte without meaning."""
    buffer, path = io.BytesIO(), tmp_path / "file.pth"
    torch.save({"w": torch.arange(20.0), "b": torch.ones(3), "step": 7}, buffer)
    whole, passed = buffer.getvalue(), 0
    for place in range(len(whole)):
        for mask in (0x10, 0xFF):
            changed = bytearray(whole)
            changed[place] ^= mask
            path.write_bytes(bytes(changed))
            if damage(path):
                continue
            passed += 1
            try:
                back = torch.load(path, weights_only=True)
            except Exception:
                continue
            assert back["step"] == 7
            assert torch.equal(back["w"], torch.arange(20.0)), (place, mask)
            assert torch.equal(back["b"], torch.ones(3)), (place, mask)
    assert 0 < passed < len(whole)
