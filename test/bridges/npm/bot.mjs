// A bridge of matrix-bot-sdk with encryption, which repeats what it hears as one of its ghosts.
//
// Arguments: the homeserver's URL, its name, the registration's file, the port to listen at, a folder for what it
// keeps.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import {
  Appservice,
  LogLevel,
  LogService,
  MatrixClient,
  RustSdkAppserviceCryptoStorageProvider,
  SimpleFsStorageProvider,
} from "matrix-bot-sdk";

const require = createRequire(import.meta.url);
const [homeserverUrl, homeserverName, file, port, folder] = process.argv.slice(2);
const registration = require("js-yaml").load(readFileSync(file, "utf8"));
LogService.setLevel(LogLevel.DEBUG);

// A server that is away for a moment is asked again.
const request = MatrixClient.prototype.doRequest;
MatrixClient.prototype.doRequest = async function (...args) {
  for (let left = 20; ; left--) {
    try {
      return await request.apply(this, args);
    } catch (error) {
      const away = ["ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(error.code) || error.statusCode >= 502;
      if (!away || left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
};

const service = new Appservice({
  port: Number(port),
  bindAddress: "127.0.0.1",
  homeserverName,
  homeserverUrl,
  registration,
  storage: new SimpleFsStorageProvider(`${folder}/bot.json`),
  cryptoStorage: new RustSdkAppserviceCryptoStorageProvider(`${folder}/crypto`),
  intentOptions: { encryption: true },
});
const ghost = service.getUserId("_x_ghost");

service.on("room.invite", async (room, event) => {
  const intent = service.getIntentForUserId(event.state_key);
  await intent.joinRoom(room);
  if (event.state_key === service.botUserId) {
    await intent.underlyingClient.inviteUser(ghost, room);
  }
});
service.on("room.failed_decryption", (room, event, error) => console.log(`not decrypted: ${event.event_id} ${error}`));
service.on("room.message", async (room, event) => {
  if (!service.isNamespacedUser(event.sender) && event.sender !== service.botUserId) {
    const intent = service.getIntentForUserId(ghost);
    await intent.enableEncryption();
    await intent.sendText(room, `echo: ${event.content.body}`);
  }
});

await service.begin();
// matrix-bot-sdk ends when somebody invites a user that it has not registered.
await service.getIntentForUserId(ghost).enableEncryption();
// A client with the service's token acts as a device.
const device = service.botIntent.underlyingClient.crypto.clientDeviceId;
const client = new MatrixClient(homeserverUrl, registration.as_token);
client.impersonateUserId(service.botUserId, device);
const who = await client.getWhoAmI();
if (who.user_id !== service.botUserId || who.device_id !== device) {
  throw new Error(`whoami says ${JSON.stringify(who)}, want ${service.botUserId} ${device}`);
}
console.log("the bridge has started");
