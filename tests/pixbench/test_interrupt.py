from __future__ import annotations

import os
import signal

from pixbench.interrupt import SaveSignal


def test_a_request_to_save_is_taken_once() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with SaveSignal() as save:
        assert not save.take()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert save.take()
        assert not save.take()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert save.take()
    assert signal.getsignal(signal.SIGUSR1) == before
