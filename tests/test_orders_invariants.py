"""Whatever people do, in whatever order: stock, totals, audit and notifications always tell the same story."""

from collections import Counter
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.company import Company, data, ok, refused, work
from tests.people import API, Person, Row
from tests.shared_app import SharedApp

AUDITED = ("name", "price_cents", "quantity", "reorder_level", "tags")

prices = st.integers(1, 1_000_000_000)
quantities = st.integers(0, 12)


class Stock(Company):
    """The same company with a stock, from which everybody orders."""

    def __init__(self, shared_app: SharedApp) -> None:
        super().__init__(shared_app)
        self.items: dict[int, Row] = {}
        self.put_in: Counter[int] = Counter()
        self.orders: dict[int, Row] = {}
        self.kept: dict[tuple[int, str], tuple[Row, Row]] = {}
        self.names = count(1)
        for quantity in (5, 10, 20):
            self._add_item(self.ada, {"price_cents": 100 * quantity, "quantity": quantity, "reorder_level": 3})

    # What people do

    @rule(data=data, price=prices, quantity=quantities, level=st.integers(0, 5))
    def add_item(self, data: st.DataObject, price: int, quantity: int, level: int) -> None:
        body = {"price_cents": price, "quantity": quantity, "reorder_level": level, "tags": ["new"]}
        self._add_item(data.draw(st.sampled_from(self.admins)), body)

    @precondition(lambda self: self.items)
    @rule(data=data, quantity=st.integers(1, 6))
    def order_one_item(self, data: st.DataObject, quantity: int) -> None:
        line = {"item_id": self.any_of(data, self.items)["id"], "quantity": quantity}
        self._order(data.draw(st.sampled_from(self.people)), {"lines": [line], "note": None}, None)

    @precondition(lambda self: self.items)
    @rule(data=data, quantity=st.integers(1, 6), key=st.sampled_from([None, "a", "b"]))
    def order_several_items(self, data: st.DataObject, quantity: int, key: str | None) -> None:
        item_ids = data.draw(st.lists(st.sampled_from(sorted(self.items)), min_size=1, unique=True))
        lines = [{"item_id": item_id, "quantity": quantity} for item_id in item_ids]
        self._order(data.draw(st.sampled_from(self.people)), {"lines": lines, "note": "Thanks"}, key)

    @precondition(lambda self: self.kept)
    @rule(data=data)
    def repeat_an_order(self, data: st.DataObject) -> None:
        user_id, key = data.draw(st.sampled_from(sorted(self.kept)))
        person = next(person for person in self.people if person.id == user_id)
        self._order(person, self.kept[user_id, key][0], key)

    @precondition(lambda self: self.orders)
    @rule(data=data)
    def cancel_order(self, data: st.DataObject) -> None:
        person, order = self._somebodys_order(data)
        answer = person.patch(f"/orders/{order['id']}", {"status": "cancelled"})
        if person is self.max and order["user_id"] != self.max.id:
            return refused(answer, 404, "ORDER_NOT_FOUND")
        if order["status"] != "pending":
            return refused(answer, 409, "ORDER_NOT_PENDING")
        self._left_pending(person, order, ok(answer, 200))
        for line in order["lines"]:
            self._restocked(person, self.items[line["item_id"]], line["quantity"])
        return None

    @precondition(lambda self: self.orders)
    @rule(data=data)
    def fulfil_order(self, data: st.DataObject) -> None:
        person, order = self._somebodys_order(data)
        answer = person.patch(f"/orders/{order['id']}", {"status": "fulfilled"})
        if person is self.max and order["user_id"] != self.max.id:
            return refused(answer, 404, "ORDER_NOT_FOUND")
        if person is self.max:
            return refused(answer, 403, "FORBIDDEN")
        if order["status"] != "pending":
            return refused(answer, 409, "ORDER_NOT_PENDING")
        return self._left_pending(person, order, ok(answer, 200))

    @precondition(lambda self: self.items)
    @rule(data=data, quantity=quantities)
    def restock(self, data: st.DataObject, quantity: int) -> None:
        admin = data.draw(st.sampled_from(self.admins))
        item = self.any_of(data, self.items)
        before = item["quantity"]
        self._patch_item(admin, item, {"quantity": quantity})
        self.put_in[item["id"]] += quantity - before
        self._warned(admin, item, before)

    @precondition(lambda self: self.items)
    @rule(data=data, price=prices)
    def change_price(self, data: st.DataObject, price: int) -> None:
        admin = data.draw(st.sampled_from(self.admins))
        self._patch_item(admin, self.any_of(data, self.items), {"price_cents": price})

    @precondition(lambda self: self.items)
    @rule(data=data)
    def delete_item(self, data: st.DataObject) -> None:
        admin = data.draw(st.sampled_from(self.admins))
        item = self.any_of(data, self.items)
        answer = admin.delete(f"/items/{item['id']}")
        if any(line["item_id"] == item["id"] for order in self.orders.values() for line in order["lines"]):
            return refused(answer, 409, "ITEM_HAS_ORDERS")
        ok(answer, 204)
        del self.items[item["id"]]
        return self.audited(admin, "delete", "item", item, AUDITED)

    # What must be true after every step

    @invariant()
    def no_unit_is_lost_or_made_up(self) -> None:
        items = self.zoe.get("/items?page_size=100").json()["items"]
        orders = self.ada.get("/orders?page_size=100").json()["items"]
        taken: Counter[int] = Counter()
        for order in orders:
            assert order["total_cents"] == sum(line["quantity"] * line["unit_price_cents"] for line in order["lines"])
            if order["status"] != "cancelled":
                taken.update({line["item_id"]: line["quantity"] for line in order["lines"]})

        for item in items:
            assert item["quantity"] + taken[item["id"]] == self.put_in[item["id"]]
        assert {order["id"]: order for order in orders} == self.orders
        assert _without_times({item["id"]: item for item in items}) == _without_times(self.items)

    # What follows from what they do

    def _somebodys_order(self, data: st.DataObject) -> tuple[Person, Row]:
        return data.draw(st.sampled_from(self.people)), self.any_of(data, self.orders)

    def _add_item(self, admin: Person, body: Row) -> None:
        item = ok(admin.post("/items", body | {"name": f"Item {next(self.names)}"}), 201)
        self.items[item["id"]] = item
        self.put_in[item["id"]] = item["quantity"]
        self.audited(admin, "create", "item", item, AUDITED)

    def _order(self, person: Person, body: Row, key: str | None) -> None:
        answer = person.post("/orders", body, headers={"Idempotency-Key": key} if key else {})
        if key and (person.id, key) in self.kept:
            first_body, first_answer = self.kept[person.id, key]
            if body != first_body:
                return refused(answer, 422, "IDEMPOTENCY_KEY_REUSED")
            assert answer.headers["Idempotent-Replayed"] == "true"
            assert ok(answer, 201) == first_answer
            return None
        wanted = {line["item_id"]: line["quantity"] for line in body["lines"]}
        short = {item_id for item_id, quantity in wanted.items() if quantity > self.items[item_id]["quantity"]}
        if short:
            assert {error["item_id"] for error in answer.json()["errors"]} == short
            return refused(answer, 409, "OUT_OF_STOCK")
        order = ok(answer, 201)
        self.orders[order["id"]] = order
        if key:
            self.kept[person.id, key] = (body, dict(order))
        return self._placed(person, order, wanted)

    def _placed(self, person: Person, order: Row, wanted: dict[int, int]) -> None:
        lines = [
            {"item_id": item_id, "quantity": quantity, "unit_price_cents": self.items[item_id]["price_cents"]}
            for item_id, quantity in wanted.items()
        ]
        assert [{name: line[name] for name in lines[0]} for line in order["lines"]] == lines
        audited = order | {"lines": lines}
        self.audited(person, "create", "order", audited, ("user_id", "status", "total_cents", "note", "lines"))
        self._told_admins(person, "order_placed", f"{API}/orders/{order['id']}")
        for item_id, quantity in wanted.items():
            item = self.items[item_id]
            self._restocked(person, item, -quantity)
            self._warned(person, item, item["quantity"] + quantity)

    def _left_pending(self, person: Person, order: Row, answer: Row) -> None:
        assert answer["version"] == order["version"] + 1
        self.expected.audit.append(
            (person.id, "update", "order", order["id"], {"status": ["pending", answer["status"]]})
        )
        if person.id != order["user_id"]:
            event = (order["user_id"], f"order_{answer['status']}", f"{API}/orders/{order['id']}")
            self.expected.notifications.append(event)
        self.orders[order["id"]] = answer

    def _patch_item(self, admin: Person, item: Row, changes: Row) -> None:
        answer = ok(admin.patch(f"/items/{item['id']}", changes), 200)
        changed = {name: [item[name], value] for name, value in changes.items() if item[name] != value}
        if changed:
            self.expected.audit.append((admin.id, "update", "item", item["id"], changed))
        item |= changes | {"version": item["version"] + bool(changed)}
        assert _without_times({0: answer}) == _without_times({0: item})

    def _restocked(self, person: Person, item: Row, by: int) -> None:
        change = {"quantity": [item["quantity"], item["quantity"] + by]}
        self.expected.audit.append((person.id, "update", "item", item["id"], change))
        item |= {"quantity": item["quantity"] + by, "version": item["version"] + 1}

    def _warned(self, person: Person, item: Row, before: int) -> None:
        if before > item["reorder_level"] >= item["quantity"]:
            self._told_admins(person, "low_stock", f"{API}/items/{item['id']}")

    def _told_admins(self, person: Person, kind: str, link: str) -> None:
        others = [admin for admin in self.admins if admin is not person]
        self.expected.notifications += [(admin.id, kind, link) for admin in others]


def _without_times(items: dict[int, Row]) -> dict[int, Row]:
    return {item_id: item | {"updated_at": None} for item_id, item in items.items()}


def test_stock_totals_audit_and_notifications_agree_whatever_people_do(shared_app: SharedApp) -> None:
    work(Stock, shared_app, companies=20)
