"""Build the model of a framework for a backbone, and load a file into it with the framework's own loader."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch

from pixbench.errors import UserError
from transfer.weights.backbone import Backbone
from transfer.weights.frameworks import FrameworkModel, find_framework


def loaded(framework: str, backbone: Backbone, path: Path) -> FrameworkModel:
    """Return the model of ``framework`` for ``backbone`` in eval mode, with the weights in ``path``.

    The global random state does not change.
    """
    rules = find_framework(framework)
    try:
        with quiet():
            built = rules.build(backbone)
            rules.load(built.model, path)
    except ImportError as error:
        raise UserError(
            f"verification as {framework} needs a package that is not installed ({error}); "
            "run scripts/install.sh, or skip verification with --no-verify"
        ) from error
    except RuntimeError as error:  # PyTorch raises it if names or shapes do not fit
        raise UserError(
            f"{path} does not load as {framework}: {str(error).splitlines()[0]}; convert it again"
        ) from error
    built.model.eval()
    return built


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the global random state, and suppress the frameworks' long messages about missing heads, logged or printed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
