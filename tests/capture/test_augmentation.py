"""Random transforms, by the names under which datasets keep them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import trainwatch
from trainwatch.capture.augmentation import augmentations


class Compose:
    def __init__(self, *transforms):
        self.transforms = list(transforms)


class RandomCrop:
    pass


class ToTensor:
    pass


class ColorJitter:
    pass


def add_noise(x):
    return x


def holding(**parts):
    return SimpleNamespace(**parts)


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (holding(transform=RandomCrop()), ["RandomCrop"]),
        (holding(transform=Compose(RandomCrop(), ToTensor(), ColorJitter())), ["RandomCrop", "ColorJitter"]),
        (holding(transforms=Compose(Compose(RandomCrop()), RandomCrop())), ["RandomCrop"]),
        (holding(dataset=holding(dataset=holding(augment=add_noise))), ["add_noise"]),
        (holding(transform=ToTensor()), []),
        (holding(transform=None), []),
        (holding(), []),
        (None, []),
    ],
)
def test_names(dataset, names):
    assert augmentations(dataset) == names


def test_what_holds_itself_comes_to_an_end():
    one = holding()
    one.dataset = one.transform = one
    assert augmentations(one) == []


def test_of_the_loader_that_is_trained_on():
    class Augmented(torch.utils.data.TensorDataset):
        transform = Compose(RandomCrop())

    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(Augmented(torch.randn(8, 4), torch.randint(0, 3, (8,))), batch_size=4)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True})
    for x, y in loader:
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    watch.finish()
    assert watch.record.facts["loaders"]["train"]["augmentation"] == ["RandomCrop"]
