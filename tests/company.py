"""A company whose people do what they like, and what must be true of it after every step."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from httpx2 import Response
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.people import API, Person, Row
from tests.shared_app import SharedApp

BOUNDS = settings(
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

Change = tuple[int, str, str, int, Row]
Event = tuple[int, str, str]
data = st.data()


@dataclass
class Expected:
    """What the last step must have left behind, and nothing else."""

    audit: list[Change] = field(default_factory=list[Change])
    notifications: list[Event] = field(default_factory=list[Event])


class Company(RuleBasedStateMachine):
    """Two admins and a member who write posts, and what we know of the company without asking it."""

    def __init__(self, shared_app: SharedApp) -> None:
        super().__init__()
        shared_app.begin(names := ("ada", "zoe", "max"))
        self.people = [person for name in names if (person := shared_app.person(name))]
        self.ada, self.zoe, self.max = self.people
        assert self.ada.patch(f"/users/{self.zoe.id}", {"role": "admin"}).status_code == 200
        self.admins = [self.ada, self.zoe]
        self.posts: dict[int, Row] = {}
        self.comments: dict[int, Row] = {}
        self.expected = Expected()
        self.seen_audit = self.ada.get("/audit?limit=1").json()["items"][0]["id"]
        self.seen_notifications = {person.id: 0 for person in self.people}

    # What people do

    @rule(data=data)
    def write_post(self, data: st.DataObject) -> None:
        person = data.draw(st.sampled_from(self.people))
        post = ok(person.post("/posts", {"title": "News", "content": "The lamps are here."}), 201)
        self.posts[post["id"]] = post
        self.audited(person, "create", "post", post, ("title", "content", "creator_id"))

    @precondition(lambda self: self.posts)
    @rule(data=data)
    def delete_post(self, data: st.DataObject) -> None:
        person, post = data.draw(st.sampled_from(self.people)), self.any_of(data, self.posts)
        answer = person.delete(f"/posts/{post['id']}")
        if person is self.max and post["creator_id"] != self.max.id:
            return refused(answer, 403, "NOT_OWNER")
        ok(answer, 204)
        for comment in [comment for comment in self.comments.values() if comment["post_id"] == post["id"]]:
            self._deleted_comment(person, comment)
        del self.posts[post["id"]]
        return self.audited(person, "delete", "post", post, ("title", "content", "creator_id"))

    @precondition(lambda self: self.posts)
    @rule(data=data)
    def write_comment(self, data: st.DataObject) -> None:
        person, post = data.draw(st.sampled_from(self.people)), self.any_of(data, self.posts)
        path = f"/posts/{post['id']}/comments"
        comment = ok(person.post(path, {"content": "At last"}), 201)
        self.comments[comment["id"]] = comment
        self.audited(person, "create", "comment", comment, ("post_id", "content", "creator_id"))
        if person.id != post["creator_id"]:
            event = (post["creator_id"], "comment", f"{API}{path}/{comment['id']}")
            self.expected.notifications.append(event)

    @precondition(lambda self: self.comments)
    @rule(data=data)
    def delete_comment(self, data: st.DataObject) -> None:
        person, comment = data.draw(st.sampled_from(self.people)), self.any_of(data, self.comments)
        answer = person.delete(f"/posts/{comment['post_id']}/comments/{comment['id']}")
        if person is self.max and comment["creator_id"] != self.max.id:
            return refused(answer, 403, "NOT_OWNER")
        ok(answer, 204)
        return self._deleted_comment(person, comment)

    # What must be true after every step

    @invariant()
    def the_audit_has_exactly_the_changes(self) -> None:
        entries = self.ada.get("/audit?limit=100").json()["items"]
        fresh = [entry for entry in entries if entry["id"] > self.seen_audit]
        told = [(e["actor_id"], e["action"], e["entity"], e["entity_id"], e["changes"]) for e in fresh]
        self.seen_audit = entries[0]["id"]

        assert _in_order(told) == _in_order(self.expected.audit)
        self.expected.audit.clear()

    @invariant()
    def notifications_are_exactly_the_events(self) -> None:
        told: list[Event] = []
        for person in self.people:
            rows = person.get("/notifications?limit=100").json()["items"]
            fresh = [row for row in rows if row["id"] > self.seen_notifications[person.id]]
            self.seen_notifications[person.id] = rows[0]["id"] if rows else 0
            told += [(person.id, row["kind"], row["link"]) for row in fresh]

        assert sorted(told) == sorted(self.expected.notifications)
        self.expected.notifications.clear()

    # What follows from what they do

    def any_of(self, data: st.DataObject, rows: dict[int, Row]) -> Row:
        return rows[data.draw(st.sampled_from(sorted(rows)))]

    def _deleted_comment(self, person: Person, comment: Row) -> None:
        del self.comments[comment["id"]]
        self.audited(person, "delete", "comment", comment, ("post_id", "content", "creator_id"))

    def audited(self, person: Person, action: str, entity: str, row: Row, fields: Iterable[str]) -> None:
        changes = {name: [None, row[name]] if action == "create" else [row[name], None] for name in fields}
        self.expected.audit.append((person.id, action, entity, row["id"], changes))


def ok(answer: Response, status: int) -> Row:
    """The body of an answer that has this status."""
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else {}


def refused(answer: Response, status: int, code: str) -> None:
    """Find that an answer is this refusal."""
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def _in_order(changes: list[Change]) -> list[Change]:
    return sorted(changes, key=repr)


def work(company: type[Company], shared_app: SharedApp, *, companies: int) -> None:
    """Let people do whatever they like, in so many companies one after the other."""
    new: Any = partial(company, shared_app)  # Any: a function that makes a machine will do, too
    run_state_machine_as_test(new, settings=settings(BOUNDS, max_examples=companies))
