import numpy as np
import pytest

from cnnjax.data import TrainOrder
from cnnjax.data.order import CROP, ORDER, permutation, random_bits


@pytest.mark.parametrize("n", [1, 2, 7, 1437])
def test_every_example_comes_once_an_epoch(n):
    indices = TrainOrder(seed=3, n=n).at(range(4 * n)).reshape(4, n)
    assert indices.dtype == np.int32
    assert (np.sort(indices, axis=1) == np.arange(n)).all()


def test_epochs_and_seeds_differ():
    epochs = [TrainOrder(seed, 100).at(range(start, start + 100)).tolist()
              for seed in (0, 1, -1, 2**40) for start in (0, 100, 200)]
    assert len({tuple(e) for e in epochs}) == 12


def test_any_position_is_reached_without_state():
    whole = TrainOrder(seed=0, n=10).at(range(100))
    for start, count in ((95, 5), (0, 1), (13, 30), (9, 2)):
        order = TrainOrder(seed=0, n=10)
        assert (order.at(range(start, start + count)) == whole[start:start + count]).all()


def test_positions_may_come_in_any_shape_and_order():
    order = TrainOrder(seed=0, n=10)
    positions = np.array([[95, 3], [12, 12]])
    assert (order.at(positions) == order.at(range(100))[positions]).all()


def test_the_order_is_the_same_on_every_version_of_everything():
    assert TrainOrder(seed=0, n=10).at(range(7, 15)).tolist() == [3, 6, 7, 5, 3, 7, 8, 2]
    assert permutation(42, 1, ORDER, 5).tolist() == [4, 3, 0, 2, 1]


def test_purposes_do_not_share_random_numbers():
    assert not set(random_bits(0, 0, ORDER, 100)) & set(random_bits(0, 0, CROP, 100))


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="n=0"):
        TrainOrder(seed=0, n=0)


def test_repeats_stand_in_a_row_and_an_epoch_keeps_its_length():
    order, plain = TrainOrder(3, 10, repeats=3), TrainOrder(3, 10)
    epoch = order.at(range(10, 20))
    assert (epoch == np.repeat(plain.at(range(10, 14)), 3)[:10]).all()
    assert (order.at([17, 3]) == [order.at([17])[0], order.at([3])[0]]).all()


def test_no_two_passes_over_an_example_have_one_number():
    order, positions = TrainOrder(3, 10, repeats=3), np.arange(200)
    pairs = list(zip(order.at(positions), order.passes(positions), strict=True))
    assert len(set(pairs)) == 200
    assert (TrainOrder(3, 10).passes(positions) == positions // 10).all()
