package place

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/matrix-org/gomatrixserverlib"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

const (
	pemType  = "MATRIX PRIVATE KEY"
	pemKeyID = "Key-ID"
)

// GenerateKey writes a new signing key. It fails with os.ErrExist if there is one.
func GenerateKey(path string) error {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	block := &pem.Block{Type: pemType, Headers: map[string]string{pemKeyID: "ed25519:" + strings.ToLower(rand.Text()[:8])}, Bytes: seed}
	return writeNew(path, pem.EncodeToMemory(block))
}

// ReadKey reads a signing key, in the form of GenerateKey or in the one-line form of other servers: `ed25519 a_key seed`.
func ReadKey(path string, server id.ServerName) (pdu.Signer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return pdu.Signer{}, fmt.Errorf("matrix.private_key: there is no file %s: bring the server's key there; only a server that never ran gets a new one, with `dendrite generate-keys --private-key %[1]s`", path)
	}
	if err != nil {
		return pdu.Signer{}, fmt.Errorf("matrix.private_key: %w", err)
	}
	keyID, seed, err := parseKey(data)
	if err != nil {
		return pdu.Signer{}, fmt.Errorf("matrix.private_key: %s: %w", path, err)
	}
	return pdu.Signer{ServerName: server, KeyID: gomatrixserverlib.KeyID(keyID), PrivateKey: ed25519.NewKeyFromSeed(seed)}, nil
}

var keyIDForm = regexp.MustCompile(`^ed25519:[a-zA-Z0-9_]+$`)

func parseKey(data []byte) (keyID string, seed []byte, err error) {
	if block, _ := pem.Decode(data); block != nil {
		keyID, seed = block.Headers[pemKeyID], block.Bytes
		if block.Type != pemType {
			return "", nil, fmt.Errorf("it is a %s, not a %s: `dendrite generate-keys` makes one", block.Type, pemType)
		}
	} else {
		line, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
		fields := strings.Fields(string(line))
		if len(fields) != 3 || fields[0] != "ed25519" {
			return "", nil, errors.New("it is neither PEM nor a line `ed25519 a_key seed`: `dendrite generate-keys` makes one")
		}
		keyID = fields[0] + ":" + fields[1]
		if seed, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(fields[2], "=")); err != nil {
			return "", nil, fmt.Errorf("the seed is not base64: %w", err)
		}
	}
	if !keyIDForm.MatchString(keyID) {
		return "", nil, fmt.Errorf("the key id %q is not of the form ed25519:letters_and_digits", keyID)
	}
	if len(seed) != ed25519.SeedSize {
		return "", nil, fmt.Errorf("the key has %d bytes, not %d", len(seed), ed25519.SeedSize)
	}
	return keyID, seed, nil
}
