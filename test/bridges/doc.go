// Package bridges makes sure that real bridges and bots work with the server as application services, on a monolith and on a
// polylith: heisenbridge with a real IRC server, bridges of matrix-appservice-bridge, matrix-bot-sdk and mautrix.
//
// The first run installs them into .cache/programs. Where something is missing, tests are skipped with the reason, or fail
// where DENDRITE_TEST_REQUIRE is set.
package bridges
