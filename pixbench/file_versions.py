"""Names and versions of the files that PixBench writes and reads again.

A version is raised when an older PixBench can no longer read the file. PixBench still reads files of the older versions
listed here; `tests/golden/old_files` holds one file of each.
"""

from __future__ import annotations

CHECKPOINT_FILE = "checkpoint.pth"
"""Name of the newest checkpoint in the folder of a pre-training run."""
CHECKPOINT_FORMAT = "pixbench-pretrain"
"""Value of "format" in a pre-training checkpoint."""
CHECKPOINT_VERSION = 2
"""Version of a pre-training checkpoint. Version 1 calls the backbone "trunk" and the momentum encoder "target"."""
EARLIER_FOLDER = "earlier"
"""Name of the folder beside `CHECKPOINT_FILE` with the checkpoints before the newest one (setting keep_last)."""
BAD_BATCH_FILE = "bad_batch.json"
"""Name of the file in the folder of a pre-training run that describes the batch after which the run gave up."""
INDEX_FORMAT = "pixbench-index"
"""Value of "format" in an index of images that `pixbench data index` has written."""
INDEX_VERSION = 1
"""Version of an index of images."""
IMAGE_LIST = "images.txt"
"""Name of the file in the folder of a pre-training run with the names and labels of its images."""
SKIPPED_LIST = "skipped.txt"
"""Name of the file in the folder of a pre-training run with the broken images that it left out, and why."""
RESULT_FILE = "result.json"
"""Name of the result file that every kind of run writes."""
RESULT_SCHEMA = 2
"""Version of `RESULT_FILE`. Version 1 has no digest, no commit, no curve, and no values of classes and images; tables leave it
out until `pixbench results upgrade` has rewritten it."""
ZOO_FILE = "backbone.safetensors"
"""Name of the weights in the folder of a backbone of the zoo."""
WEIGHTS_KEY = "pixbench"
"""Key of the description in a written weight file: {"backbone": ..., "pixels": ..., "sha256": digest of the weights}, and
"pretraining" if the run that the weights come from is known, and "resized" if patches became larger after it.

Files written before 0.2 have "trunk" instead of "backbone".
"""
RUN_LOG = "log.txt"
"""Name of the file in the folder of a transfer run for all that the framework prints."""
VIEWS_FILE = "views.npz"
"""Name of the file in the folder of a pre-training run with the views of a few images of its first step."""
STEP_LOG = "log.jsonl"
"""Name of the file in the folder of a pre-training run with one line for each logged step."""
MINI_WORLD_FILE = "miniworld.json"
"""Name of the file in the root folder of a mini world that `pixbench data mini` has generated."""
MINI_WORLD_VERSIONS = {"shapes": 2, "everyday": 3, "photographs": 1}
"""Version of the generator of each mini world. It is raised when the same seed gives different bytes."""
