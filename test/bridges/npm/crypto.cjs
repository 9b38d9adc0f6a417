// Stands in for @matrix-org/matrix-sdk-crypto-nodejs, whose native part its package downloads from outside of npm. It
// is the same Rust library as WebAssembly, with the differences of its JavaScript that matrix-bot-sdk 0.7.1 would
// notice. Keys are in memory only.
//
// Use: node --require crypto.cjs.
const Module = require("node:module");
const wasm = require("@matrix-org/matrix-sdk-crypto-wasm");

const resolve = Module._resolveFilename;
Module._resolveFilename = function (name, ...rest) {
  return name === "@matrix-org/matrix-sdk-crypto-nodejs" ? __filename : resolve.call(this, name, ...rest);
};

// WebAssembly takes the objects that it is given away from their owner.
const copies = (users) => users.map((user) => user.clone());

class DeviceLists {
  constructor(changed = [], left = []) {
    this.take = () => new wasm.DeviceLists(copies(changed), copies(left));
  }
}

class OlmMachine {
  static async initialize(user, device) {
    const machine = new OlmMachine();
    machine.inner = await wasm.OlmMachine.initialize(user, device);
    machine.settings = () => new wasm.DecryptionSettings(wasm.TrustRequirement.Untrusted);
    return machine;
  }

  get identityKeys() {
    return this.inner.identityKeys;
  }

  async receiveSyncChanges(events, lists, counts, unusedFallbackKeys) {
    const seen = await this.inner.receiveSyncChanges(
      events,
      lists.take(),
      new Map(Object.entries(counts)),
      new Set(unusedFallbackKeys),
      this.settings(),
    );
    return JSON.stringify(seen.map((event) => JSON.parse(event.rawEvent)));
  }

  async outgoingRequests() {
    return (await this.inner.outgoingRequests()).map((request) =>
      request.type === wasm.RequestType.ToDevice
        ? { id: request.id, type: request.type, body: JSON.stringify(toDevice(request)) }
        : request,
    );
  }

  markRequestAsSent(id, type, response) {
    return this.inner.markRequestAsSent(id, type, response);
  }

  getMissingSessions(users = []) {
    return this.inner.getMissingSessions(copies(users));
  }

  updateTrackedUsers(users) {
    return this.inner.updateTrackedUsers(copies(users));
  }

  async shareRoomKey(room, users, wanted) {
    const settings = Object.assign(new wasm.EncryptionSettings(), wanted);
    return JSON.stringify((await this.inner.shareRoomKey(room, copies(users), settings)).map(toDevice));
  }

  encryptRoomEvent(room, type, content) {
    return this.inner.encryptRoomEvent(room, type, content);
  }

  decryptRoomEvent(event, room) {
    return this.inner.decryptRoomEvent(event, room, this.settings());
  }
}

const toDevice = (request) => ({ txn_id: request.txn_id, event_type: request.event_type, ...JSON.parse(request.body) });

class EncryptionSettings {}

module.exports = { ...wasm, DeviceLists, EncryptionSettings, OlmMachine, StoreType: { Sled: 0, Sqlite: 1 } };
