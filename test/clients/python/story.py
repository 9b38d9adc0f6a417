"""Lives the story of story_test.go with matrix-nio.

It reads who plays from standard input, and writes the story to the file that is its argument.
"""

import asyncio
import json
import sys

import nio


def ok(answer):
    """Is the answer, if it is not an error."""
    if isinstance(answer, nio.ErrorResponse):
        raise RuntimeError(f"{type(answer).__name__}: {answer}")
    return answer


def limited(events):
    """Is a filter that takes so many events of a timeline at once."""
    return {"room": {"timeline": {"limit": events}}}


class User:
    """A client that logs in, and what sync has told it."""

    def __init__(self, person):
        self.id, self.password = person["user_id"], person["password"]
        config = nio.AsyncClientConfig(encryption_enabled=False, max_timeouts=1)
        self.client = nio.AsyncClient(person["url"], self.id, config=config)
        self.changed = asyncio.Condition()
        self.received, self.joined, self.read = [], set(), {}
        self.inviter = self.typist = None

    async def login(self):
        ok(await self.client.login(self.password))

    def follow(self):
        """Syncs until the task is cancelled."""
        c = self.client
        c.add_event_callback(self.message, nio.RoomMessageText)
        c.add_event_callback(self.member, nio.RoomMemberEvent)
        c.add_event_callback(self.invite, nio.InviteMemberEvent)
        c.add_ephemeral_callback(self.typing, nio.TypingNoticeEvent)
        c.add_ephemeral_callback(self.receipt, nio.ReceiptEvent)
        # nio does not fetch what a limited timeline leaves out.
        return asyncio.create_task(c.sync_forever(timeout=30000, sync_filter=limited(50)))

    async def message(self, room, event):
        self.received.append(event.event_id)
        await self.notify()

    async def member(self, room, event):
        if event.membership == "join":
            self.joined.add(event.state_key)
        await self.notify()

    async def invite(self, room, event):
        if event.state_key == self.id and event.membership == "invite":
            self.inviter = (room.room_id, event.sender)
        await self.notify()

    async def typing(self, room, event):
        for user in event.users:
            self.typist = user
        await self.notify()

    async def receipt(self, room, event):
        for receipt in event.receipts:
            if receipt.receipt_type == "m.read":
                self.read[receipt.user_id] = receipt.event_id
        await self.notify()

    async def notify(self):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, what, holds):
        """Waits until sync has told something."""
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(holds), 60)
            except asyncio.TimeoutError:
                raise RuntimeError(f"{self.id} waits in vain: {what}: {vars(self)}")

    async def say(self, room, body):
        content = {"msgtype": "m.text", "body": body}
        return ok(await self.client.room_send(room, "m.room.message", content)).event_id


async def talk(cast, alice, bob):
    created = await alice.client.room_create(name="Tea", preset=nio.RoomPreset.private_chat)
    room = ok(created).room_id
    ok(await alice.client.room_invite(room, bob.id))
    await bob.until("the invite", lambda: bob.inviter and bob.inviter[0] == room)
    ok(await bob.client.join(room))
    for user in (alice, bob):
        await user.until("both have joined", lambda: user.joined >= {alice.id, bob.id})

    async def send(user):
        return [await user.say(room, f"hello {n}") for n in range(cast["messages"])]

    sent = await asyncio.gather(send(alice), send(bob))
    await alice.until("all messages", lambda: len(alice.received) >= 2 * cast["messages"])
    ok(await alice.client.room_typing(room, True))
    await bob.until("alice types", lambda: bob.typist)
    last = await alice.say(room, "and this")
    sent[0].append(last)
    for user in (alice, bob):
        await user.until("the last message", lambda: last in user.received)
    ok(await bob.client.update_receipt_marker(room, last))
    await alice.until("bob's receipt", lambda: alice.read.get(bob.id) == last)
    return {
        "room": room,
        "room_name": bob.client.rooms[room].name,
        "inviter": bob.inviter[1],
        "sent": {"alice": sent[0], "bob": sent[1]},
        "received": {"alice": alice.received, "bob": bob.received},
        "typist": bob.typist,
        "read": alice.read[bob.id],
    }


async def page_back(person, room):
    second = User(person)
    await second.login()
    first = ok(await second.client.sync(timeout=0, sync_filter=limited(5)))
    timeline = first.rooms.join[room].timeline
    events, start, pages = timeline.events[::-1], timeline.prev_batch, 0
    while start:
        page = ok(await second.client.room_messages(room, start, limit=8))
        events += page.chunk
        start, pages = page.end, pages + 1
    await second.client.close()
    messages = [e.event_id for e in events if isinstance(e, nio.RoomMessageText)]
    return {"paged": messages[::-1], "pages": pages}


async def main():
    cast = json.load(sys.stdin)
    alice, bob = User(cast["alice"]), User(cast["bob"])
    for user in (alice, bob):
        await user.login()
    syncs = [user.follow() for user in (alice, bob)]
    talking = asyncio.create_task(talk(cast, alice, bob))
    # A sync that ends has failed.
    done, _ = await asyncio.wait([talking, *syncs], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    story = talking.result()
    for sync in syncs:
        sync.cancel()
    await asyncio.gather(*syncs, return_exceptions=True)
    for user in (alice, bob):
        await user.client.close()
    story |= await page_back(cast["bob"], story["room"])
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(story, file)


asyncio.run(main())
