// Package clients makes sure that real clients work with the server: matrix-js-sdk, which Element Web and many others are
// built on, matrix-nio for Python and mautrix for Go. Each lives the same story (tell), and each is held to the same facts
// (story.check).
//
// The encrypted stories (TestEncrypted) are told once, in Go. Each library has a program that plays clients of it by
// commands (company), so that clients of several libraries meet in one room. All processes of the server are restarted
// while they talk.
//
// The first run installs matrix-js-sdk and matrix-nio into .cache/programs, in the versions that npm/package-lock.json and
// python/requirements.txt say. Where there is no Node, no Python or no network, their tests are skipped with the reason, or
// fail where DENDRITE_TEST_REQUIRE is set.
package clients
