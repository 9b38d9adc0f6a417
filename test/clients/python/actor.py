"""Plays encrypted clients of matrix-nio for actor_test.go.

A line of standard input is a command for one of them, a line of file descriptor 3 answers it.
"""

import asyncio
import base64
import hashlib
import json
import os
import sys
import traceback

import nio
import nio.crypto.sas

# matrix-nio 0.26 writes the commitment in hexadecimal, and names the codes that it makes as if libolm had made them. With
# any other client its verification fails at once, on any server. The specification has base64, and another name.
nio.crypto.sas.sha256 = lambda data: Sha256(data)
nio.crypto.sas.Sas._mac_normal = "hkdf-hmac-sha256.v2"
nio.crypto.sas.Sas._mac_v1 = ["hkdf-hmac-sha256.v2"]


class Sha256:
    def __init__(self, data):
        self.digest = hashlib.sha256(data).digest()

    def hexdigest(self):
        return base64.b64encode(self.digest).decode().rstrip("=")


class Actor:
    """A client, and what is remembered of it between commands. Its methods are the commands."""

    def __init__(self):
        self.changed = asyncio.Condition()
        self.messages, self.sessions, self.secret = {}, {}, {}
        self.unread = []
        self.told = []  # to-device events of verifications that nio leaves to the application

    async def login(self, url, user_id, password, timeline):
        """Logs in, and syncs from then on."""
        config = nio.AsyncClientConfig(store=nio.store.SqliteMemoryStore, encryption_enabled=True, max_timeouts=60)
        self.client = c = nio.AsyncClient(url, user_id, config=config)
        ok(await c.login(password))
        c.add_event_callback(self.message, (nio.RoomMessageText, nio.MegolmEvent))
        c.add_to_device_callback(self.to_device, nio.ToDeviceEvent)
        c.add_response_callback(self.notify)
        self.sync = asyncio.create_task(c.sync_forever(30000, {"room": {"timeline": {"limit": timeline}}}))
        await self.until("its own keys", lambda: c.olm_account_shared)
        return {"device_id": c.device_id}

    async def message(self, room, event):
        if isinstance(event, nio.MegolmEvent):
            self.unread.append(event)
        else:
            self.messages[event.event_id] = event
        await self.notify()

    async def to_device(self, event):
        for late in list(self.unread):
            try:
                self.messages[late.event_id] = self.client.decrypt_event(late)
                self.unread.remove(late)
            except nio.EncryptionError:
                pass  # its key is not here yet
        if isinstance(event, nio.UnknownToDeviceEvent):
            self.told.append(event)
        await self.notify()

    async def notify(self, *_):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, what, holds):
        """Waits until sync, or another answer, has told something."""
        found = None

        def look():
            nonlocal found
            if self.sync.done():
                self.sync.result()
            found = holds()
            return found

        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(look), 60)
            except asyncio.TimeoutError:
                raise RuntimeError(f"waited in vain: {what}")
        return found

    async def create_room(self, invite):
        created = await self.client.room_create(
            preset=nio.RoomPreset.private_chat, invite=invite, initial_state=[nio.EnableEncryptionBuilder().as_dict()]
        )
        room = ok(created).room_id
        await self.until("the new room", lambda: room in self.client.rooms)
        return {"room": room}

    async def join(self, room):
        await self.until("the invite", lambda: room in self.client.invited_rooms)
        ok(await self.client.join(room))

    async def joined(self, room, count):
        """Waits until so many have joined."""
        def has():
            found = self.client.rooms.get(room)
            return found and len(found.users) - len(found.invited_users) == count

        await self.until("who has joined", has)

    async def say(self, room, text):
        """Sends a message, again and again where the server is not there: nio leaves that to the application."""
        content, transaction = {"msgtype": "m.text", "body": text}, os.urandom(8).hex()
        for attempt in range(60):
            try:
                sent = await self.client.room_send(room, "m.room.message", content, transaction, True)
                return {"event": ok(sent).event_id}
            except (RuntimeError, nio.ProtocolError) as e:
                failed = e
                await asyncio.sleep(0.5)
        raise failed

    async def read(self, room, event):
        """Waits until a message is decrypted."""
        found = await self.until(f"the message {event}", lambda: self.messages.get(event))
        return {
            "event": found.event_id,
            "sender": found.sender,
            "text": found.body,
            "encrypted": found.decrypted,
            "session": found.session_id or "",
        }

    async def devices(self, user, ids):
        """Waits until a user has these devices and no others, and tells which of them are verified."""
        store = self.client.device_store
        await self.until(f"{user} has {ids}", lambda: {d.id for d in store.active_user_devices(user)} == set(ids))
        return {"signed": [], "verified": [d.id for d in store.active_user_devices(user) if d.verified]}

    async def accept(self):
        """Accepts that somebody verifies: answers with the numbers that people compare."""
        request = await self.until("a request to verify", lambda: self.pop("m.key.verification.request"))
        self.other = (request["sender"], request["content"]["from_device"])
        self.transaction = request["content"]["transaction_id"]
        await self.send_verification("ready", {"from_device": self.client.device_id, "methods": ["m.sas.v1"]})
        self.sas = await self.until("the start", lambda: self.client.key_verifications.get(self.transaction))
        ok(await self.client.accept_key_verification(self.transaction))
        await self.until("the other's key", lambda: self.sas.state == nio.crypto.sas.SasState.key_received)
        return {"sas": self.sas.get_decimals()}  # its emoji are wrong, too

    async def confirm(self):
        """Says that the numbers are the same, and waits until both have."""
        ok(await self.client.confirm_short_auth_string(self.transaction))
        await self.until("the other's word", lambda: self.sas.verified or self.canceled())
        await self.send_verification("done", {})
        await self.until("the end", lambda: self.pop("m.key.verification.done"))

    def canceled(self):
        if self.sas.canceled:
            raise RuntimeError(f"cancelled: {self.sas.cancel_code}")

    def pop(self, kind):
        for event in self.told:
            if event.type == kind:
                self.told.remove(event)
                return event.source

    async def send_verification(self, kind, content):
        content["transaction_id"] = self.transaction
        ok(await self.client.to_device(nio.ToDeviceMessage("m.key.verification." + kind, *self.other, content)))


def ok(answer):
    """Is the answer, if it is not an error."""
    if isinstance(answer, nio.ErrorResponse):
        raise RuntimeError(f"{type(answer).__name__}: {answer}")
    return answer


actors = {}


async def answer(line):
    command = json.loads(line)
    id, who, do = command.pop("id"), command.pop("as"), command.pop("do")
    try:
        said = {"id": id, "answer": await getattr(actors.setdefault(who, Actor()), do)(**command) or {}}
    except Exception:
        said = {"id": id, "error": f"{do}: {traceback.format_exc()}"}
    os.write(3, (json.dumps(said) + "\n").encode())


async def main():
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    answers = set()
    while line := await lines.readline():
        answers.add(asyncio.create_task(answer(line)))
    for actor in actors.values():
        await actor.client.close()
    os._exit(0)  # whatever the syncs still do


asyncio.run(main())
