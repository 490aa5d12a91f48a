"""Every kind of answer that an app gives."""

from httpx2 import Response

from tests.people import API, PASSWORD, Person

SITE = "https://shop.example.com"
BODY_LIMIT = 2048


def every_kind_of_answer(ada: Person, room_id: int) -> dict[str, Response]:
    room, anybody = f"/rooms/{room_id}", ada.client
    return {
        "200": ada.get(room),
        "201": ada.post("/rooms", {"name": "Attic", "seats": 1}),
        "204": ada.delete(f"{room}000", headers={"If-Match": "*"}),
        "304": ada.get(room, headers={"If-None-Match": '"1"'}),
        "400": ada.post("/rooms", content=b"\xff", headers={"Content-Type": "application/json"}),
        "400 host": anybody.get("/health", headers={"Host": "elsewhere.example.com"}),
        "401": anybody.get(f"{API}{room}"),
        "404": ada.get("/rooms/999"),
        "404 route": anybody.get("/nowhere"),
        "405": anybody.put("/health"),
        "409": ada.post("/rooms", {"name": "Hall", "seats": 1}),
        "412": ada.patch(room, {}, headers={"If-Match": '"9"'}),
        "413": ada.post("/rooms", content=b"x" * (BODY_LIMIT + 1), headers={"Content-Type": "application/json"}),
        "422": ada.get("/rooms/first"),
        "500": anybody.get("/anybody/fails", headers={"X-Password": PASSWORD}),
    }
