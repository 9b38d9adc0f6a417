// A bridge of matrix-appservice-bridge that makes what it is asked for, repeats what it hears, and knows one network.
//
// Arguments: the homeserver's URL, its name, the registration's file, the port to listen at.
import { Bridge } from "matrix-appservice-bridge";

const [homeserverUrl, domain, registration, port] = process.argv.slice(2);

const bridge = new Bridge({
  homeserverUrl,
  domain,
  registration,
  disableStores: true,
  controller: {
    onUserQuery: (user) => (user.localpart.endsWith("_nobody") ? null : { name: `Ghost ${user.localpart}` }),
    onAliasQuery: (alias, localpart) =>
      localpart.endsWith("_nothing")
        ? null
        : { creationOpts: { room_alias_name: localpart, name: `Room ${localpart}`, preset: "public_chat" } },
    onAliasQueried: (alias, room) => console.log(`made ${alias} ${room}`),
    onEvent: async (request) => {
      const event = request.getData();
      const own = bridge.getBot().isRemoteUser(event.sender) || event.sender === bridge.getBot().getUserId();
      const invited = event.type === "m.room.member" && event.content.membership === "invite";
      if (invited && event.state_key.includes("_ghost_")) {
        await bridge.getIntent(event.state_key).join(event.room_id);
      }
      if (event.type === "m.room.message" && !own) {
        await bridge.getIntent(bridge.getBot().getUserId()).sendText(event.room_id, `echo: ${event.content.body}`);
      }
    },
    thirdPartyLookup: {
      protocols: ["gopher"],
      getProtocol: () => ({
        user_fields: ["name"],
        location_fields: ["hole"],
        icon: "mxc://test.example/gopher",
        field_types: { name: { regexp: ".*", placeholder: "name" }, hole: { regexp: ".*", placeholder: "hole" } },
        instances: [{ network_id: "gopher", desc: "Gopher", fields: {} }],
      }),
      getLocation: (protocol, fields) => [{ alias: `#_x_${fields.hole}:${domain}`, protocol, fields }],
      parseLocation: (alias) => [{ alias, protocol: "gopher", fields: { hole: "parsed" } }],
      getUser: (protocol, fields) => [{ userid: `@_x_${fields.name}:${domain}`, protocol, fields }],
      parseUser: (userid) => [{ userid, protocol: "gopher", fields: { name: "parsed" } }],
    },
  },
});

await bridge.run(Number(port), undefined, "127.0.0.1");
// The check that bridges make at their start: an event of its own comes back to it.
const room = await bridge.getIntent().createRoom({ createAsClient: false, options: { preset: "private_chat" } });
console.log(`ping ${await bridge.pingAppserviceRoute(room.room_id, 30000)}`);
