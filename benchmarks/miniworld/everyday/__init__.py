"""The everyday world: kinds built of parts, with typical materials, in places that go with some kinds more than with others."""

from benchmarks.miniworld.everyday.world import Everyday

__all__ = ["Everyday"]
