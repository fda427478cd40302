"""Names and versions of the files that PixBench writes and reads again.

A version is raised when an older PixBench could not read the file any more. Files of the older versions listed here are
still read; `tests/golden/old_files` holds one of each.
"""

from __future__ import annotations

CHECKPOINT_FORMAT = "pixbench-pretrain"
"""Value of "format" in a pre-training checkpoint."""
CHECKPOINT_VERSION = 2
"""Version of a pre-training checkpoint. Version 1 calls the backbone "backbone" and the momentum encoder "target"."""
RESULT_FILE = "result.json"
"""Name of the file that a run of any kind leaves behind."""
RESULT_SCHEMA = 1
"""Version of `RESULT_FILE`."""
WEIGHTS_KEY = "pixbench"
"""Key under which a written file of weights says what it holds: {"backbone": ..., "pixels": ..., "sha256": of the weights}.

Files of before 0.2 say "backbone" instead of "backbone".
"""
MINI_WORLD_FILE = "miniworld.json"
"""Name of the file in the root of a world that `pixbench data mini` has drawn."""
MINI_WORLD_VERSION = 2
"""Version of the generator: raised when the same seed gives other bytes."""
