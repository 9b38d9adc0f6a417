package storage

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

const message = `{"auth_events":["$odcZtoyj9wy1h9LRkJDkUyDcP3PbG17zxOwpWAKEuoY","$nzxqNllHzjFp4bEWXqHfepyEbp7hxbxEu2WpYu07oa4"],"content":{"body":"a message of a load test","msgtype":"m.text"},"depth":4785,"hashes":{"sha256":"4JSjKBI6vad+nbS/QM2gAjV4VOM6CSab3lQDtvGrpws"},"origin_server_ts":1795743457451,"prev_events":["$mKAVFtD3gVbV00-Z-vxt6rhS8iEJj0IG59TZsmsgloY"],"room_id":"!2253J6B2IRSXDF3BNVFTZNU567:ours.test","sender":"@bench-4132bc8c-4074:ours.test","signatures":{"ours.test":{"ed25519:mac3v1":"dCDBuAMms2rqc4uBFNDdKSplK5jYlu0BxpBdC7fduT3MV/ICM725jG8j3qTq99fjSrkzksG4nXvg2hAYzxMZDQ"}},"type":"m.room.message"}`

func TestEventsAreStoredInLessAndReadAsTheyWere(t *testing.T) {
	for name, json := range map[string]string{
		"a message": message, "the least": `{}`, "what repeats": `{"body":"` + strings.Repeat("abc", 20_000) + `"}`,
		"what does not": `{"body":"` + rand.Text() + rand.Text() + `"}`, "odd text": "{\"body\":\"\x00\xff\u2028\"}",
	} {
		stored := compress([]byte(json))
		if got, err := decompress(stored); err != nil || string(got) != json {
			t.Errorf("%s: %v, %q", name, err, got)
		}
		if len(stored) > len(json)+8 {
			t.Errorf("%s takes %d bytes instead of %d", name, len(stored), len(json))
		}
	}
	if stored := compress([]byte(message)); len(stored)*4 > len(message)*3 {
		t.Errorf("a message takes %d bytes of %d", len(stored), len(message))
	}
	if got, err := decompress([]byte(message)); err != nil || !bytes.Equal(got, []byte(message)) {
		t.Errorf("an event that was stored as it is: %v, %q", err, got)
	}
	for _, bad := range []string{"", "\x00{}", "\x02abc", "\x01", "\x01\xff\xff\xff\xff\xff\xff"} {
		if got, err := decompress([]byte(bad)); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

// What is in databases must stay readable.
func TestTheDictionaryStaysAsItIs(t *testing.T) {
	const stored = "01da0415000af0596f64635a746f796a3977793168394c526b4a446b55794463503350624731377a784f777057414b45756f59222c22246e7a78714e6c6c487a6a4670346245575871486665707945627037687862784575325770597530376f6134566501046120018d44616765206f662061206c6f616420746573743a1b053a6d010c3437383515000da8344a536a4b4249367661642b6e62532f514d3267416a5634564f4d3643536162336c5144747647727077736298012435373433343537343531469801a86d4b4156467444336756625630302d5a2d767874367268533869454a6a3049473539545a736d73676c6f593ac3017c323235334a36423249525358444633424e5646545a4e553536373a6f7572732e0df539e74862656e63682d34313332626338632d34303734362a00320402191a5d03f05e6d6163337631223a226443444275414d6d7332727163347542464e44644b53706c4b356a596c75304278704264433766647554334d562f49434d3732356a47386a337154713939666a53726b7a6b7347346e587667326841597a784d5a4451415a150010"
	was, err := hex.DecodeString(stored)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decompress(was); err != nil || string(got) != message {
		t.Errorf("an event that was stored is read as %q, %v; now it is stored as %x", got, err, compress([]byte(message)))
	}
	if sum := sha256.Sum256([]byte(dictionary1)); hex.EncodeToString(sum[:]) != "f537064d08c7df0f02bd6120febd06f9747cb8843c66b49cc4b7747199f428fb" {
		t.Errorf("dictionary1 has changed: its hash is %x", sum)
	}
}

func BenchmarkCompress(b *testing.B) {
	for b.Loop() {
		compress([]byte(message))
	}
}

func BenchmarkDecompress(b *testing.B) {
	stored := compress([]byte(message))
	for b.Loop() {
		if _, err := decompress(stored); err != nil {
			b.Fatal(err)
		}
	}
}
