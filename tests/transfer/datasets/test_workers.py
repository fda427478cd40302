"""Processes that Detectron2 starts to read Cityscapes."""

from __future__ import annotations

import signal

from transfer.detection.datasets import Processes


def test_workers_of_a_pool_end_at_sigterm_and_the_command_keeps_its_handler() -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Processes.Pool(processes=2) as pool:
            assert pool.map(signal.getsignal, [signal.SIGTERM] * 8) == [signal.SIG_DFL] * 8
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
