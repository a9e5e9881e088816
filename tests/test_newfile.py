"""Temporary files and directories of several processes, each of which sweeps what it takes for litter."""

from __future__ import annotations

import os

import pytest

from kvcache import newfile


@pytest.mark.parametrize("make", [newfile.temporary_directory, newfile.temporary_file])
@pytest.mark.parametrize("call", ["os.open", "fcntl.flock"])
def test_a_sweep_between_creation_and_lock_costs_a_second_try(monkeypatch, tmp_path, make, call):
    module, _, name = call.partition(".")
    original = getattr(getattr(newfile, module), name)
    swept = []

    def interrupted(*arguments, **options):
        if not swept and list(tmp_path.iterdir()):  # another process sweeps just now
            swept.append(True)
            for path in tmp_path.iterdir():
                (os.rmdir if path.is_dir() else os.unlink)(path)
        return original(*arguments, **options)

    if call == "os.open" and make is newfile.temporary_file:
        swept.append(True)  # a file is created and opened at once
    monkeypatch.setattr(f"kvcache.newfile.{call}", interrupted)
    with make(tmp_path) as made:
        assert swept
        path = made[1] if isinstance(made, tuple) else made
        assert path.exists()
        newfile.sweep(tmp_path)
        assert path.exists(), "it is locked"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), newfile.temporary_directory(tmp_path / "gone"):
        pass
