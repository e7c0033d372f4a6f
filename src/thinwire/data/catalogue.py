"""The data sets that have a name: what they are, where the Hugging Face hub keeps them, how they are standardised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """A named data set.

    `mean` and `std` are per channel, of training pixels in [0, 1]; `rename` maps the hub's column names to ours;
    `splits` are the hub's names for train and test.
    """

    description: str
    classes: int | None = None
    repo: str | None = None
    revision: str | None = None
    splits: tuple[str, str] = ("train", "test")
    rename: Mapping[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "1,437 + 360 handwritten digits, 1×8×8, 10 classes; comes with scikit-learn, no network needed",
        classes=10,
        mean=(0.3051,),
        std=(0.3759,),
    ),
    "mnist": DatasetInfo(
        "60,000 + 10,000 handwritten digits, 1×28×28, 10 classes",
        classes=10,
        repo="ylecun/mnist",
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "fashion_mnist": DatasetInfo(
        "60,000 + 10,000 pictures of clothing, 1×28×28, 10 classes",
        classes=10,
        repo="zalando-datasets/fashion_mnist",
        mean=(0.2860,),
        std=(0.3530,),
    ),
    "cifar10": DatasetInfo(
        "50,000 + 10,000 colour photographs, 3×32×32, 10 classes",
        classes=10,
        repo="uoft-cs/cifar10",
        rename={"img": "image"},
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": DatasetInfo(
        "50,000 + 10,000 colour photographs, 3×32×32, 100 classes",
        classes=100,
        repo="uoft-cs/cifar100",
        rename={"img": "image", "fine_label": "label"},
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
    "emnist": DatasetInfo(
        "112,800 + 18,800 handwritten letters and digits (EMNIST balanced), 1×28×28, 47 classes",
        classes=47,
        repo="claudiogsc/emnist_balanced",
        mean=(0.1751,),
        std=(0.3332,),
    ),
    "tinyshakespeare": DatasetInfo(
        "1,115,394 characters of Shakespeare, windows of 80 characters, 65 distinct",
        repo="karpathy/tiny_shakespeare",
        revision="fe12e06d82fe3af4291b90426557387520d81385",  # the main branch is a script, which datasets 4 refuses
        splits=("train", "validation+test"),
    ),
}
