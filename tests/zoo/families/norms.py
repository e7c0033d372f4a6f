"""Models with normalisation layers and with reparametrised weights."""

from tests.zoo.families.pieces import WIDTH, Entry, Shape, image, net
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


def batchnorm1d(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.BatchNorm1d(WIDTH), nn.ReLU())


def batchnorm2d(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.BatchNorm2d(4))


def batchnorm_plain(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.BatchNorm1d(WIDTH, affine=False), nn.ReLU())


def batchnorm_untracked(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.BatchNorm1d(WIDTH, track_running_stats=False), nn.ReLU())


def batchnorm_cumulative(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.BatchNorm1d(WIDTH, momentum=None), nn.ReLU())


def instancenorm_tracked(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.InstanceNorm2d(4, affine=True, track_running_stats=True))


def instancenorm(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.InstanceNorm2d(4))


def groupnorm(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.GroupNorm(2, 4))


def layernorm(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.LayerNorm(WIDTH), nn.ReLU())


def rmsnorm(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.RMSNorm(WIDTH), nn.ReLU())


def sync_batchnorm(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.SyncBatchNorm(WIDTH), nn.ReLU())


def response_norm(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.LocalResponseNorm(2))


def spectral_old(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU(), spectral_norm(nn.Linear(WIDTH, WIDTH)), nn.ReLU())


def spectral_new(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU(), parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)), nn.ReLU())


def weight_norm_old(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU(), weight_norm(nn.Linear(WIDTH, WIDTH)), nn.ReLU())


def weight_norm_new(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU(), parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)), nn.ReLU())


def orthogonal(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU(), parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)), nn.ReLU())


ZOO = {
    "BatchNorm1d": Entry(batchnorm1d, grows=("1.num_batches_tracked",)),
    "BatchNorm2d": Entry(batchnorm2d, "images"),
    "BatchNorm without affine": Entry(batchnorm_plain),
    "BatchNorm without tracking": Entry(batchnorm_untracked),
    "BatchNorm, momentum=None": Entry(batchnorm_cumulative, grows=("1.num_batches_tracked",)),
    "InstanceNorm with tracking": Entry(instancenorm_tracked, "images"),
    "InstanceNorm": Entry(instancenorm, "images"),
    "GroupNorm": Entry(groupnorm, "images"),
    "LayerNorm": Entry(layernorm),
    "RMSNorm": Entry(rmsnorm),
    "SyncBatchNorm": Entry(sync_batchnorm, right="either"),
    "LocalResponseNorm": Entry(response_norm, "images"),
    "spectral_norm, the old one": Entry(spectral_old, right="either"),
    "spectral_norm": Entry(spectral_new, right="either"),
    "weight_norm, the old one": Entry(weight_norm_old, right="either"),
    "weight_norm": Entry(weight_norm_new),
    "orthogonal": Entry(orthogonal, right="either"),
}
