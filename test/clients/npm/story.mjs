// Lives the story of story_test.go with matrix-js-sdk. It reads who plays from standard input, and writes the story to the file that
// is its argument.

import { readFileSync, writeFileSync } from "node:fs";
import { ClientEvent, createClient, Filter, RoomEvent, RoomMemberEvent, RoomStateEvent, SyncState } from "matrix-js-sdk";

// matrix-js-sdk wants Node 22 for this function, and Debian has Node 20.
Promise.withResolvers ??= () => {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};

/** A client that has logged in and syncs, and takes so many events of a timeline at once. */
async function login({ url, user_id, password }, timelineLimit) {
    const session = await createClient({ baseUrl: url }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: user_id },
        password,
    });
    const client = createClient({
        baseUrl: url,
        userId: session.user_id,
        deviceId: session.device_id,
        accessToken: session.access_token,
    });
    const ready = until(client, "the first sync", () => client.getSyncState() === SyncState.Prepared || client.getSyncState() === SyncState.Syncing);
    const filter = new Filter(session.user_id);
    filter.setTimelineLimit(timelineLimit);
    // Detached: what is being sent takes its place in the timeline when it comes back through sync, and not before.
    await client.startClient({ initialSyncLimit: timelineLimit, filter, pendingEventOrdering: "detached" });
    await ready;
    return client;
}

const heard = [
    ClientEvent.Sync,
    ClientEvent.Room,
    RoomEvent.MyMembership,
    RoomEvent.Timeline,
    RoomEvent.Receipt,
    RoomStateEvent.Members,
    RoomMemberEvent.Typing,
];

/** Waits until something holds, looking again whenever the client has heard something. */
function until(client, what, holds) {
    return new Promise((resolve, reject) => {
        const end = (settle, value) => {
            clearTimeout(timer);
            for (const event of heard) client.off(event, look);
            settle(value);
        };
        const look = () => {
            const value = holds();
            if (value) end(resolve, value);
        };
        const timer = setTimeout(() => end(reject, new Error(`${client.getUserId()} waits in vain: ${what}`)), 60_000);
        for (const event of heard) client.on(event, look);
        look();
    });
}

/** The ids of the messages that a client has of a room, in the order of its timeline. */
function messages(client, room) {
    const events = client.getRoom(room)?.getLiveTimeline().getEvents() ?? [];
    return events.filter((e) => e.getType() === "m.room.message").map((e) => e.getId());
}

async function talk(cast, alice, bob) {
    const [a, b] = [alice.getUserId(), bob.getUserId()];
    let typist, read;
    bob.on(RoomMemberEvent.Typing, (_, member) => {
        if (member.typing) typist = member.userId;
    });
    alice.on(RoomEvent.Receipt, (event) => {
        for (const [id, receipts] of Object.entries(event.getContent())) {
            if (receipts["m.read"]?.[b]) read = id;
        }
    });

    const { room_id: room } = await alice.createRoom({ name: "Tea", preset: "private_chat" });
    await alice.invite(room, b);
    await until(bob, "the invite", () => bob.getRoom(room)?.getMyMembership() === "invite");
    const inviter = bob.getRoom(room).getMember(b).events.member.getSender();
    await bob.joinRoom(room);
    for (const client of [alice, bob]) {
        await until(client, "both have joined", () => client.getRoom(room)?.getJoinedMembers().length === 2);
    }
    const send = async (client) => {
        const sent = [];
        for (let n = 0; n < cast.messages; n++) {
            sent.push((await client.sendTextMessage(room, `hello ${n}`)).event_id);
        }
        return sent;
    };
    const sent = await Promise.all([send(alice), send(bob)]);
    await until(alice, "all messages", () => messages(alice, room).length >= 2 * cast.messages);
    await alice.sendTyping(room, true, 30_000);
    await until(bob, "alice types", () => typist);
    const { event_id: last } = await alice.sendTextMessage(room, "and this");
    sent[0].push(last);
    for (const client of [alice, bob]) {
        await until(client, "the last message", () => messages(client, room).includes(last));
    }
    await bob.sendReadReceipt(bob.getRoom(room).findEventById(last));
    await until(alice, "bob's receipt", () => read === last);
    return {
        room,
        room_name: bob.getRoom(room).name,
        inviter,
        sent: { alice: sent[0], bob: sent[1] },
        received: { alice: messages(alice, room), bob: messages(bob, room) },
        typist,
        read,
    };
}

async function pageBack(person, roomID) {
    const second = await login(person, 5);
    const room = second.getRoom(roomID);
    let pages = 0;
    while (room.oldState.paginationToken !== null) {
        await second.scrollback(room, 8);
        pages++;
    }
    second.stopClient();
    return { paged: messages(second, roomID), pages };
}

const cast = JSON.parse(readFileSync(0, "utf8"));
const alice = await login(cast.alice, 50);
const bob = await login(cast.bob, 50);
const story = await talk(cast, alice, bob);
for (const client of [alice, bob]) client.stopClient();
Object.assign(story, await pageBack(cast.bob, story.room));
writeFileSync(process.argv[2], JSON.stringify(story));
process.exit(0); // whatever timers the library still has
