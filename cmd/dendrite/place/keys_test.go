package place

import "testing"

func TestKeysOfOtherServersAreRead(t *testing.T) {
	const seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1" // of the specification's signing examples
	id, got, err := parseKey([]byte("ed25519 1 " + seed + "\n"))
	if err != nil || id != "ed25519:1" || len(got) != 32 {
		t.Errorf("%s %x %v", id, got, err)
	}
	for _, bad := range []string{"", "ed25519 1", "rsa 1 " + seed, "ed25519 1 AAAA", "ed25519 1: " + seed, "ed25519 1 %%",
		"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"} {
		if _, _, err := parseKey([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a key", bad)
		}
	}
}
