"""Per-client masks, DisPFL and SparsyFed on the real road against their plain versions, round by round.

The models agree to rounding. Masks, exact zeros, places that nobody holds, the server's sum of what it has read, the
sections and the bytes of every frame agree exactly.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sparse_reference import ClientMasks, DisPFL, SparsyFed, over_holders
from toyworld import World

from thinwire import frame as frames
from thinwire.codecs import Context, Mask
from thinwire.frame import Section
from thinwire.layout import Layout
from thinwire.runtime.state import arrays_from_bytes

SHAPES = [(5, 6), (5,), (3, 5), (3,)]
WEIGHTS = Layout.of({"first": (5, 6), "second": (3, 5)})
LAYER = np.repeat([0, 2, 1, 2], [30, 5, 15, 3])  # which of the two; 2: biases, in every mask
N, HEAD, SECTION = 53, 37, 6
FULL, MOST, HALF = {"fraction": 1.0, "epochs": 2}, {"fraction": 0.75, "decay": 0.02}, {"fraction": 0.5, "epochs": 2}


class Pair:
    """A world and its plain version; `read`: client -> (frame, update) of the last round."""

    def __init__(self, name, plain, method, fraction, epochs=1, decay=0.0):
        local = {"epochs": epochs, "weight_decay": decay}
        data = {"clients": 4, "partition": "dirichlet:1.0"}
        self.world = World(name, method=method, cohort={"fraction": fraction}, local=local, data=data)
        parts = [(d.x.astype(float), d.y) for d in map(self.world.assembly.client_data, self.world.clients)]
        assert len({len(y) for _, y in parts}) > 1  # the weighting by samples matters
        own = {"seed": 3, "weights": self.weights.astype(float), "fraction": fraction, "epochs": epochs, "decay": decay}
        self.plain, self.read, real = plain(SHAPES, parts, **own, **method), {}, self.world.method

        def read(state, client, message):
            update = real.read(state, client, message)
            self.read[client] = frames.read(message), update
            return update

        self.world.simulation.method = self.world.side.method = replace(real, read=read)

    @property
    def weights(self):
        """The server's."""
        return self.world.progress.server.weights

    def play(self):
        """A round of both, compared. -> weights before it, (samples, mask, change) of every client as read."""
        self.read.clear()
        before, plain_before, old = self.weights, self.plain.weights, dict(self.plain.masks)
        entry = self.world.play()
        self.plain.play()
        assert self.read.keys() == self.plain.sent.keys()
        up, updates = 0, []
        for client, (mask, change) in self.plain.sent.items():
            frame, update = self.read[client]
            assert update.samples == len(self.plain.data[client][1])
            kept = mask == 1
            np.testing.assert_allclose(update.value[kept], change[kept], rtol=1e-4, atol=1e-5)
            code = self.mask_code(client, before, old[client])
            (values,) = [data for sort, data in frame.sections if sort != Section.MASK]
            assert values == update.value[kept].tobytes()  # just the kept ones, in order, and no positions
            assert frame.all(Section.MASK) == code
            up += HEAD + SECTION + 4 * int(kept.sum()) + sum(SECTION + len(part) for part in code)
            updates.append((update.samples, mask, update.value))
        assert entry.up_bytes == up
        down = 16 if self.plain.round == 1 else 4 * N  # the seed; then a step or, for who missed one, the weights
        assert entry.down_bytes == len(updates) * (4 + HEAD + SECTION + down)
        np.testing.assert_allclose(self.weights, self.plain.weights, atol=2e-5)
        assert np.abs(self.plain.weights - plain_before).max() > 1e-3
        return before, updates

    def mask_code(self, client, received, old):
        """The plain version's mask as it travels: a probability for each layer and bit that both ends know."""
        if isinstance(self.plain, SparsyFed):
            mask, known = self.plain.sent[client][0], received != 0
        elif isinstance(self.plain, DisPFL):
            mask, known = self.plain.moves[client], old
        else:
            return []
        classes = (2 * LAYER + known)[self.plain.places].astype(np.uint32)
        return [Mask().encode(mask[self.plain.places], Context(WEIGHTS, classes))]


def added(before, updates):
    """The server's step by the plain sum of the numbers that it has read."""
    return before + over_holders(updates).astype(np.float32)


@pytest.mark.parametrize(("density", "settings"), [(0.21, FULL), (0.5, MOST), (0.2, HALF)])
def test_client_masks(density, settings):
    pair = Pair("client-masks", ClientMasks, {"density": density}, **settings)
    start, held = pair.weights, np.zeros(N, dtype=bool)
    for _ in range(4):
        before, updates = pair.play()
        np.testing.assert_array_equal(pair.weights, added(before, updates))
        for client, (_, update) in pair.read.items():
            np.testing.assert_array_equal(update.mask, pair.plain.masks[client])
            assert not update.value[update.mask == 0].any()
            held |= update.mask == 1
        np.testing.assert_array_equal(pair.weights[~held], start[~held])
    assert not held.all()


@pytest.mark.parametrize(
    ("density", "prune", "anneal", "settings"),
    [(0.5, 0.5, 3, FULL), (0.21, 0.9, 500, MOST), (0.8, 0.7, 10, HALF), (0.5, 0.5, 4, HALF)],
)
def test_dispfl(density, prune, anneal, settings):
    pair = Pair("dispfl", DisPFL, {"density": density, "prune": prune, "anneal": anneal}, **settings)
    for round in range(1, 7):
        old = dict(pair.plain.masks)
        before, updates = pair.play()
        np.testing.assert_array_equal(pair.weights, added(before, updates))
        server, records = pair.world.progress.server, pair.world.progress.records
        for client, (_, update) in pair.read.items():
            np.testing.assert_array_equal(update.mask, old[client])  # the values are those of the mask before
            new = pair.plain.masks[client]
            noted = np.frombuffer(server.masks[server.clients.index(client)], np.uint8)
            np.testing.assert_array_equal(np.unpackbits(noted, count=45), new[pair.plain.places])
            own = arrays_from_bytes(records[client].pending)["mask"]
            np.testing.assert_array_equal(np.unpackbits(own, count=N), new)
            assert int(new.sum()) == int(old[client].sum())
            assert (new > old[client]).any() == (round <= anneal)


@pytest.mark.parametrize(
    ("density", "beta", "settings"),
    [(0.3, 1.25, FULL), (0.5, 1.25, MOST), (0.3, 2.0, HALF), (0.5, 1.0, HALF)],
)
def test_sparsyfed(density, beta, settings):
    pair = Pair("sparsyfed", SparsyFed, {"density": density, "beta": beta}, **settings)
    alive, back = np.ones(N, dtype=bool), False
    for _ in range(5):
        before, updates = pair.play()
        whole = [(samples, np.ones(N), change) for samples, _, change in updates]
        np.testing.assert_array_equal(pair.weights, added(before, whole))
        for _, mask, change in updates:
            assert not (before + change)[mask == 0].any()
        now = pair.weights != 0
        np.testing.assert_array_equal(now, pair.plain.weights != 0)
        back |= (now & ~alive).any()
        alive = now
    assert not alive.all()
    assert back == (beta == 1)  # under a power, what all clients have pruned does not come back


def test_the_plain_version_uses_nothing_of_ours():
    source = Path(__file__).with_name("sparse_reference.py").read_text()
    assert "import thinwire" not in source
    assert "from thinwire" not in source
