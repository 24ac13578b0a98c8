"""A home belongs to one gateway at a time, and a lock does not outlive its process."""

from pathlib import Path

import pytest

from spillway.app.home import owned
from spillway.core.errors import ConfigError


def test_a_home_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with owned(home):
        assert home.is_dir()
        with pytest.raises(ConfigError, match="another gateway"), owned(home):
            pass
    with owned(home):
        assert (home / "lock").exists()


def test_a_home_that_is_no_folder_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"), owned(tmp_path / "file"):
        pass
