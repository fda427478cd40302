"""Semi-supervised segmentation by U2PL (arXiv 2203.03884), as github.com/Haochen-Wang409/U2PL computes it.

A student learns from labelled pictures, from a teacher's reliable pseudo-labels, and from unreliable pixels as negatives of the
classes that they hardly belong to.
"""

from __future__ import annotations


def register() -> None:
    """Register the parts in MMSegmentation; importing this package imports no framework."""
    from transfer.segmentation.u2pl import data, head, segmentor  # noqa: F401
