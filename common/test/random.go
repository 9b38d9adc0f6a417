package test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Environment variables for tests that depend on chance.
const (
	EnvSeed = "DENDRITE_TEST_SEED" // repeats a run: it is the seed that the run printed
	EnvSoak = "DENDRITE_TEST_SOAK" // not empty: tests take their long versions, as `make soak` wants
)

// Seed is what a test draws its chances from. It is printed, so that a run can be repeated.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if chosen := os.Getenv(EnvSeed); chosen != "" {
		var err error
		if seed, err = strconv.ParseUint(chosen, 10, 64); err != nil {
			t.Fatalf("%s must be the number that a run printed: %v", EnvSeed, err)
		}
	}
	t.Logf("%s=%d", EnvSeed, seed)
	return seed
}

// Soak is how often a test does what it repeats: a slice of the work, or the long version.
func Soak(slice, long int) int {
	if os.Getenv(EnvSoak) != "" {
		return long
	}
	return slice
}
