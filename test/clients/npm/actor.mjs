// Plays encrypted clients of matrix-js-sdk for actor_test.go. A line of standard input is a command for one of them, a
// line of file descriptor 3 answers it: libraries print what they like on the other two.

import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import {
    ClientEvent,
    createClient,
    EventStatus,
    Filter,
    MatrixEventEvent,
    RoomEvent,
    RoomStateEvent,
    SyncState,
} from "matrix-js-sdk";
import {
    CryptoEvent,
    decodeRecoveryKey,
    VerificationPhase,
    VerificationRequestEvent,
} from "matrix-js-sdk/lib/crypto-api/index.js";

// matrix-js-sdk wants Node 22 for this function, and Debian has Node 20.
Promise.withResolvers ??= () => {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};

const heard = [
    ClientEvent.Sync,
    ClientEvent.Room,
    RoomEvent.MyMembership,
    RoomEvent.Timeline,
    RoomStateEvent.Members,
    MatrixEventEvent.Decrypted,
    CryptoEvent.DevicesUpdated,
    CryptoEvent.KeyBackupSessionsRemaining,
    CryptoEvent.KeyBackupStatus,
    CryptoEvent.UserTrustStatusChanged,
    CryptoEvent.VerificationRequestReceived,
];

/** A client, and what is remembered of it between commands. Its methods are the commands. */
class Actor {
    requests = []; // to verify, that nobody has accepted
    unsent = new Map(); // messages by their transactions
    sharedWith = new Set(); // devices that got something encrypted from this one

    /** Logs in, and syncs from then on. */
    async login({ url, user_id, password, timeline }) {
        this.password = password;
        const session = await createClient({ baseUrl: url }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: user_id },
            password,
        });
        this.client = createClient({
            baseUrl: url,
            userId: session.user_id,
            deviceId: session.device_id,
            accessToken: session.access_token,
            fetchFn: (address, options) => this.fetch(address, options),
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], this.secretStorageKey],
                cacheSecretStorageKey: (id, info, key) => (this.secretStorageKey = key),
            },
        });
        await this.client.initRustCrypto({ useIndexedDB: false });
        this.crypto = this.client.getCrypto();
        this.client.on(RoomEvent.LocalEchoUpdated, (event) => {
            if (event.status === EventStatus.NOT_SENT) this.unsent.set(event.getTxnId(), event);
        });
        this.client.on(CryptoEvent.VerificationRequestReceived, (request) => this.requests.push(request));
        // initialSyncLimit is for the first sync alone: after it a timeline of more than ten events would be cut.
        const filter = new Filter(session.user_id);
        filter.setTimelineLimit(timeline);
        await this.client.startClient({ filter, pendingEventOrdering: "detached" });
        const synced = [SyncState.Prepared, SyncState.Syncing];
        await this.until("the first sync", () => synced.includes(this.client.getSyncState()));
        return { device_id: session.device_id };
    }

    /** Notes which devices get room keys. */
    async fetch(address, options) {
        if (String(address).includes("/sendToDevice/m.room.encrypted/")) {
            for (const devices of Object.values(JSON.parse(options.body).messages)) {
                for (const device of Object.keys(devices)) this.sharedWith.add(device);
            }
        }
        return await fetch(address, options);
    }

    /** Waits until something holds, looking again whenever the client, or another source of events, tells something. */
    until(what, holds, source = this.client, events = heard) {
        return new Promise((resolve, reject) => {
            const end = (settle, value) => {
                clearTimeout(timer);
                for (const event of events) source.off(event, look);
                settle(value);
            };
            const look = async () => {
                try {
                    const value = await holds();
                    if (value) end(resolve, value);
                } catch (error) {
                    end(reject, error);
                }
            };
            const timer = setTimeout(() => end(reject, new Error(`waited in vain: ${what}`)), 60_000);
            for (const event of events) source.on(event, look);
            look();
        });
    }

    /** Does something that wants the password again. */
    async authenticated(request) {
        try {
            return await request(null);
        } catch (error) {
            if (error.httpStatus !== 401 || !error.data.flows) throw error;
            return await request({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: this.client.getUserId() },
                password: this.password,
                session: error.data.session,
            });
        }
    }

    /** Makes what an account has once: cross-signing keys, secret storage and a backup. */
    async bootstrap() {
        await this.crossSign();
        const key = await this.crypto.createRecoveryKeyFromPassphrase();
        await this.crypto.bootstrapSecretStorage({ createSecretStorageKey: async () => key, setupNewKeyBackup: true });
        return { recovery_key: key.encodedPrivateKey, ready: await this.ready() };
    }

    /** Has cross-signing keys: those of secret storage, or new ones. */
    async crossSign() {
        const authUploadDeviceSigningKeys = (request) => this.authenticated(request);
        await this.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys });
    }

    async ready() {
        return (await this.crypto.isCrossSigningReady()) && (await this.crypto.isSecretStorageReady());
    }

    async create_room({ invite }) {
        const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
        const { room_id: room } = await this.client.createRoom({
            preset: "private_chat",
            invite,
            initial_state: [encryption],
        });
        await this.until("the new room", () => this.client.getRoom(room));
        return { room };
    }

    async join({ room }) {
        await this.until("the invite", () => this.client.getRoom(room)?.getMyMembership() === "invite");
        await this.client.joinRoom(room);
    }

    /** Waits until so many have joined. */
    async joined({ room, count }) {
        await this.until("who has joined", () => this.client.getRoom(room)?.getJoinedMembers().length === count);
    }

    /** Sends a message. When the server is away it is sent again, as people do who see that it is not sent. */
    async say({ room, text }) {
        const transaction = this.client.makeTxnId();
        let send = () => this.client.sendTextMessage(room, text, transaction);
        for (let attempt = 1; ; attempt++) {
            try {
                return { event: (await send()).event_id };
            } catch (error) {
                const unsent = this.unsent.get(transaction);
                if (!unsent || attempt === 60) throw error;
                send = () => this.client.resendEvent(unsent, this.client.getRoom(room));
                await new Promise((resolve) => setTimeout(resolve, 500));
            }
        }
    }

    /** Waits until a message is decrypted. */
    async read({ room, event }) {
        const find = () => this.client.getRoom(room)?.findEventById(event);
        try {
            await this.until(`the message ${event}`, () => find()?.getType() === "m.room.message");
        } catch (error) {
            error.message += find() ? `: ${find().decryptionFailureReason}` : ": it is not in the timeline";
            throw error;
        }
        return this.told(find());
    }

    async told(event) {
        if (event.isEncrypted() && !event.getClearContent()) await event.attemptDecryption(this.client.getCrypto());
        return {
            event: event.getId(),
            sender: event.getSender(),
            text: event.isDecryptionFailure() ? "" : event.getContent().body,
            encrypted: event.isEncrypted(),
            session: event.getWireContent().session_id,
        };
    }

    /** Pages back to the room's beginning, and reads every message. */
    async history({ room }) {
        const found = await this.until("the room", () => this.client.getRoom(room));
        while (found.oldState.paginationToken !== null) await this.client.scrollback(found, 10);
        const encrypted = found.getLiveTimeline().getEvents().filter((e) => e.getWireType() === "m.room.encrypted");
        await Promise.all(encrypted.map((e) => e.getDecryptionPromise()));
        const messages = [];
        for (const event of encrypted) {
            const message = await this.told(event);
            if (message.text !== undefined) messages.push(message); // the others are a verification's
        }
        return { messages };
    }

    /**
     * Starts to verify somebody: answers with the numbers that people compare. It is told in a room, to the user's own
     * other devices, or to a device.
     */
    async verify({ user, device, room }) {
        if (room) this.request = await this.crypto.requestVerificationDM(user, room);
        else if (user === this.client.getUserId()) this.request = await this.crypto.requestOwnUserVerification();
        else this.request = await this.crypto.requestDeviceVerification(user, device);
        await this.phase(VerificationPhase.Ready);
        return await this.show(await this.request.startVerification("m.sas.v1"));
    }

    /** Accepts that somebody verifies: answers with the numbers that people compare. */
    async accept() {
        this.request = await this.until("a request to verify", () => this.requests.shift());
        await this.request.accept();
        await this.phase(VerificationPhase.Started);
        return await this.show(this.request.verifier);
    }

    /** Says that the numbers are the same, and waits until both have. */
    async confirm() {
        await this.sas.confirm();
        await this.verified;
        await this.phase(VerificationPhase.Done);
    }

    async phase(phase) {
        const reached = () => {
            if (this.request.phase === VerificationPhase.Cancelled) {
                throw new Error(`cancelled: ${this.request.cancellationCode}`);
            }
            return this.request.phase === phase;
        };
        await this.until(`phase ${phase}`, reached, this.request, [VerificationRequestEvent.Change]);
    }

    async show(verifier) {
        const shown = new Promise((resolve) => verifier.once("show_sas", resolve));
        this.verified = verifier.verify();
        this.verified.catch(() => undefined); // confirm looks at it
        this.sas = await Promise.race([shown, this.verified]);
        return { sas: this.sas.sas.decimal };
    }

    /** Waits until a user is verified, or is not. */
    async trusts({ user, verified }) {
        const status = () => this.crypto.getUserVerificationStatus(user);
        await this.until(`${user} is verified: ${verified}`, async () => (await status()).isVerified() === verified);
    }

    /** Waits until a user has these devices and no others: tells which of them are signed by the user, and verified. */
    async devices({ user, ids }) {
        const has = async () => [...((await this.crypto.getUserDeviceInfo([user], true)).get(user)?.keys() ?? [])];
        await this.until(`${user} has ${ids}`, async () => (await has()).sort().join() === ids.toSorted().join());
        const states = await Promise.all(ids.map((device) => this.crypto.getDeviceVerificationStatus(user, device)));
        const those = (what) => ids.filter((_, i) => what(states[i]));
        return { signed: those((s) => s.signedByOwner), verified: those((s) => s.isVerified()) };
    }

    /** Tells which devices got something encrypted since it was asked last. */
    async shared_with() {
        const devices = [...this.sharedWith];
        this.sharedWith.clear();
        return { devices };
    }

    /** Waits until every room key of this device is in the backup, and nothing else is. */
    async backed_up() {
        const has = async () => (await this.crypto.exportRoomKeys()).length;
        const count = async () => (await this.client.http.authedRequest("GET", "/room_keys/version")).count;
        await this.until("the backup", async () => (await has()) === (await count()));
        return { count: await count() };
    }

    /** Makes a fresh device one of the account's by the recovery key, and fetches the room keys. */
    async restore({ recovery_key }) {
        this.secretStorageKey = decodeRecoveryKey(recovery_key);
        await this.crypto.userHasCrossSigningKeys(); // asks the server for the public ones
        await this.crossSign();
        await this.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await this.crypto.checkKeyBackupAndEnable();
        const { total, imported } = await this.crypto.restoreKeyBackup();
        return { total, imported, ready: await this.ready() };
    }

    async delete_device({ device }) {
        await this.authenticated((auth) => this.client.deleteDevice(device, auth ?? undefined));
    }

    /** Leaves a dehydrated device behind, after taking what the one before it got. */
    async dehydrate() {
        if (!(await this.crypto.isDehydrationSupported())) throw new Error("the server has no dehydrated devices");
        const told = { room_keys: 0, events: 0 };
        const progress = (room_keys, events) => Object.assign(told, { room_keys, events });
        this.client.on(CryptoEvent.RehydrationProgress, progress);
        this.client.on(CryptoEvent.RehydrationError, (message) => (told.error = message));
        await this.crypto.startDehydration();
        const prefix = "/_matrix/client/unstable/org.matrix.msc3814.v1";
        const http = this.client.http;
        const { device_id } = await http.authedRequest("GET", "/dehydrated_device", undefined, undefined, { prefix });
        return { ...told, device_id };
    }

    async logout() {
        await this.client.logout(true);
    }
}

const actors = new Map();

async function answer({ id, as, do: command, ...rest }) {
    if (!actors.has(as)) actors.set(as, new Actor());
    let said;
    try {
        said = { id, answer: (await actors.get(as)[command](rest)) ?? {} };
    } catch (error) {
        said = { id, error: `${command}: ${error.stack ?? error}` };
    }
    writeSync(3, JSON.stringify(said) + "\n");
}

for await (const line of createInterface({ input: process.stdin })) answer(JSON.parse(line));
process.exit(0); // whatever timers the library still has
