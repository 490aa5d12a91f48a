"""What the sweeps share: one app, in which the rows that a request needs are made before it."""

import pytest

from tests.shared_app import SharedApp
from tests.world import World


@pytest.fixture(scope="module")
def one_world(shared_app: SharedApp) -> World:
    return World(shared_app)


@pytest.fixture
def world(one_world: World) -> World:
    """A database with people in it and nothing else."""
    one_world.begin()
    return one_world
