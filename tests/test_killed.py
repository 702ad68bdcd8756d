"""A run that is killed mid-epoch leaves a record that can be judged."""

import json
import os
import signal
import subprocess
import sys

import pytest

LOOP = """
import sys
import torch
from torch import nn
import trainwatch

torch.manual_seed(0)
inputs, labels = torch.randn(256, 8), torch.randint(0, 3, (256,))
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
trainwatch.watch(model, optimizer, log_dir=sys.argv[1], settings={"quiet": True, "flush_every": 10})
step = 0
while True:
    for part in range(0, 192, 16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[part:part + 16]), labels[part:part + 16]).backward()
        optimizer.step()
        step += 1
        print(step, flush=True)
    with torch.no_grad():
        nn.functional.cross_entropy(model(inputs[192:]), labels[192:])
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_run_is_diagnosed_from_what_it_left(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    steps = 0
    for line in child.stdout:
        steps = int(line)
        if steps >= 137:  # in the middle of an epoch and of a flush
            child.send_signal(signal.SIGKILL)
            break
    child.stdout.close()
    child.wait()
    command = [sys.executable, "-m", "trainwatch", "diagnose", str(tmp_path), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] in ("healthy", "findings")
    assert report["facts"]["run"]["finished"] is False
    loss = report["figures"]["loss"]["lines"]
    last = max(step for points in loss.values() for step, _ in points)
    assert report["facts"]["run"]["steps"] == last + 1
    assert steps - 20 <= last  # at most the last two flushes are lost
