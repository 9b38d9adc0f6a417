package keys

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
)

// ed is the algorithm of all keys that sign.
const ed = "ed25519"

// signatures are those of an object: by user, and algorithm with key id.
type signatures map[id.UserID]map[string]string

// signature is one of an object.
type signature struct {
	user      id.UserID
	key       string // algorithm with key id
	signature string
}

// withSignatures makes an object of what was signed and signatures, which are of one user after the other, and of
// further members.
func withSignatures(form []byte, all []signature, more ...byte) []byte {
	out := append(make([]byte, 0, len(form)+200*len(all)+len(more)+20), form[:len(form)-1]...)
	if len(form) > 2 {
		out = append(out, ',')
	}
	out = append(out, `"signatures":{`...)
	for i, g := range all {
		switch {
		case i == 0:
			out = append(pdu.AppendString(out, g.user), ":{"...)
		case all[i-1].user != g.user:
			out = append(pdu.AppendString(append(out, "},"...), g.user), ":{"...)
		default:
			out = append(out, ',')
		}
		out = append(pdu.AppendString(out, g.key), ':')
		out = pdu.AppendString(out, g.signature)
	}
	if len(all) > 0 {
		out = append(out, '}')
	}
	return append(append(append(out, '}'), more...), '}')
}

// publicKey decodes a key of 32 bytes; nil if it is none. A key has one spelling.
func publicKey(text string) []byte {
	key, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize || len(text) != base64.RawStdEncoding.EncodedLen(len(key)) {
		return nil // the length too: line breaks are skipped
	}
	return key
}

// IsPublicKey tells whether a text could be the id of a cross-signing key.
func IsPublicKey(text string) bool { return publicKey(text) != nil }

// signed tells whether a signature is that of a key over the form of an object that is signed.
func signed(form []byte, key, signature string) bool {
	public := publicKey(key)
	raw, err := base64.RawStdEncoding.DecodeString(signature)
	return err == nil && public != nil && len(raw) == ed25519.SignatureSize &&
		len(signature) == base64.RawStdEncoding.EncodedLen(len(raw)) && ed25519.Verify(public, form, raw)
}

// keyID takes apart an algorithm with a key id.
func keyID(text string) (algorithm, name string, err error) {
	algorithm, name, found := strings.Cut(text, ":")
	if !found || algorithm == "" || name == "" || !isName(text) {
		return "", "", mxerr.InvalidParam(
			"%.80q is no algorithm with a key id: it must have the form algorithm:id, of at most %d bytes", text, MaxKeyID)
	}
	return algorithm, name, nil
}

// isName tells whether a text can be an id.
func isName(text string) bool {
	return len(text) <= MaxKeyID && utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

// form is what was signed of an object of a user.
func form(what string, raw json.RawMessage, most int) (json.RawMessage, error) {
	if len(raw) > most {
		return nil, mxerr.TooLarge("%s may have %d bytes", what, most)
	}
	return pdu.SigningForm(raw)
}

func invalidSignature(format string, args ...any) error {
	return mxerr.New(http.StatusBadRequest, "M_INVALID_SIGNATURE", format, args...)
}

// isNull tells whether a part of a body is absent or null, which is the same.
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
