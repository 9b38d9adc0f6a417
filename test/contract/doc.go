// Package contract compares the server with the specification's OpenAPI files: every endpoint that is routed is there, asks for a
// token where the specification says so, and answers with what its schema requires.
//
// The files are found through MATRIX_SPEC_DIR, which is ../shared/matrix-spec beside the repository if it is not set. Without them the
// tests are skipped.
package contract
