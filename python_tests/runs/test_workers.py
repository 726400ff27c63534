"""Worker processes and the GPUs that they share."""

from __future__ import annotations

from multiprocessing import get_context

import pytest
import torch

from ddarts_ext.runs import workers


def test_processes_that_share_a_gpu_know_how_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five processes on two GPUs: three on one of them, so that each may count on a third of its memory."""
    monkeypatch.setattr(workers, "_kept", {})
    monkeypatch.setattr(workers.signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert workers.sharing() == 1
    workers._begin(get_context("spawn").Value("i", 3), str.upper, "cuda", 1, 5)
    assert workers._kept["context"] == "CUDA:1"
    assert workers.sharing() == 3
