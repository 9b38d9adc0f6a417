// Package bridges makes sure that real bridges and bots work with the server as application services, on a monolith
// and on a polylith, while every process of the server ends and comes back: heisenbridge with a real IRC server
// (ngircd), and bridges that are made with matrix-appservice-bridge, matrix-bot-sdk, mautrix for Python and mautrix
// for Go.
//
// The last three encrypt (encryptedStory): somebody talks with them in an encrypted room, with a client of mautrix.
// What matrix-bot-sdk has for that in native code is not in npm; npm/crypto.cjs puts the same library as WebAssembly
// in its place.
//
// The first run installs the programs into .cache/programs, in the versions that npm/package-lock.json and python/*.txt
// say. Where something is missing, tests are skipped with the reason, or fail where DENDRITE_TEST_REQUIRE is set.
package bridges
