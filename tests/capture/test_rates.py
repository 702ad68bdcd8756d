import pytest
import torch
from torch import nn

import trainwatch


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_a_row_for_each_change_and_none_between(rate):
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, foreach=False, capturable=False)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True})
    for _ in range(9):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.ones(3, 4)), torch.zeros(3, dtype=torch.long)).backward()
        optimizer.step()
        schedule.step()
    watch.finish()
    series = watch.record.series("lr", "default/0")
    assert series.steps.tolist() == [0, 3, 6]
    assert series.values.tolist() == pytest.approx([0.1, 0.05, 0.025])
