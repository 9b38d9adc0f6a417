// Package blackbox drives the server by its public API only. Its tests run three ways: against all components in one process on SQLite,
// the same on Postgres, and every component as a process of its own on Postgres and Kafka.
//
// A test is a body given to run. In a polylith the client calls the public listeners in turn, so that what one has promised is read
// back through another. DENDRITE_BLACKBOX names the deployments to run, such as monolith-sqlite, and -short runs only that one.
package blackbox
