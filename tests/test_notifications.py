"""Notifications."""

from tests.routes import Exceptions
from tests.world import World


def _comment_by_another(world: World) -> None:
    path = f"/posts/{world.id('post_id')}/comments"
    world.another.post(path, {"content": "Good"}).raise_for_status()


def _notification(world: World) -> int:
    _comment_by_another(world)
    return world.people[world.creator].get("/notifications").json()["items"][0]["id"]


SWEEP = Exceptions(
    statuses={"PATCH /notifications/{notification_id}": {"member": 404, "admin": 404}},
    rows={"notification_id": _notification},
    lists={"GET /notifications": lambda world, _number: _comment_by_another(world)},
    plans={"/notifications": "id", "/notifications?unread=true": "id"},
)
