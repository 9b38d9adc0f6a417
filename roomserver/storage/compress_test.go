package storage

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const room = "!2253J6B2IRSXDF3BNVFTZNU567:ours.test"

const message = `{"auth_events":["$odcZtoyj9wy1h9LRkJDkUyDcP3PbG17zxOwpWAKEuoY","$nzxqNllHzjFp4bEWXqHfepyEbp7hxbxEu2WpYu07oa4"],"content":{"body":"a message of a load test","msgtype":"m.text"},"depth":4785,"hashes":{"sha256":"4JSjKBI6vad+nbS/QM2gAjV4VOM6CSab3lQDtvGrpws"},"origin_server_ts":1795743457451,"prev_events":["$mKAVFtD3gVbV00-Z-vxt6rhS8iEJj0IG59TZsmsgloY"],"room_id":"!2253J6B2IRSXDF3BNVFTZNU567:ours.test","sender":"@bench-4132bc8c-4074:ours.test","signatures":{"ours.test":{"ed25519:mac3v1":"dCDBuAMms2rqc4uBFNDdKSplK5jYlu0BxpBdC7fduT3MV/ICM725jG8j3qTq99fjSrkzksG4nXvg2hAYzxMZDQ"}},"type":"m.room.message"}`

func TestEventsAreStoredInLessAndReadAsTheyWere(t *testing.T) {
	for name, json := range map[string]string{
		"a message": message, "the least": `{}`, "what repeats": `{"body":"` + strings.Repeat("abc", 20_000) + `"}`,
		"what does not": `{"body":"` + rand.Text() + rand.Text() + `"}`, "odd text": "{\"body\":\"\x00\xff\u2028\"}",
		"a mark": "{\"body\":\"\x01\x40\"}", "another mark": "{\"body\":\"\x02\"}",
		"the room everywhere": `{"` + room + `":"` + room + `","x":["` + room + `","` + room + `"],"y":" ` + room + `"}`, "a long ciphertext": `{"ciphertext":"` + strings.Repeat("AwgAEnACgAkLmt6q/+7B", 50) + `"}`,
		"what is nearly base64": `{"a":"` + strings.Repeat("A", 43) + `-+/_` + strings.Repeat("/", 33) + `=` + strings.Repeat("_", 43) + `"}`,
	} {
		stored := compress([]byte(json), room)
		if got, err := decompress(stored, room); err != nil || string(got) != json {
			t.Errorf("%s: %v, %q", name, err, got)
		}
		if len(stored) > len(json)+8 {
			t.Errorf("%s takes %d bytes instead of %d", name, len(stored), len(json))
		}
	}
	if stored := compress([]byte(message), room); len(stored)*5 > len(message)*3 {
		t.Errorf("a message takes %d bytes of %d", len(stored), len(message))
	}
	if got, err := decompress([]byte(message), room); err != nil || !bytes.Equal(got, []byte(message)) {
		t.Errorf("an event that was stored as it is: %v, %q", err, got)
	}
	for _, bad := range []string{"", "\x00{}", "\x03abc", "\x01", "\x01\xff\xff\xff\xff\xff\xff", "\x02", "\x02\xff\xff\xff\xff\xff\xff"} {
		if got, err := decompress([]byte(bad), room); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func TestBase64IsFolded(t *testing.T) {
	chance := mathrand.New(mathrand.NewPCG(1, 2))
	const letters = "ABCxyz0189+/-_=$\"{} "
	for range 20_000 {
		json := []byte("{")
		for range chance.IntN(6) {
			text := make([]byte, chance.IntN(100))
			for i := range text {
				text[i] = letters[chance.IntN(len(letters))]
			}
			raw := make([]byte, chance.IntN(100))
			for i := range raw {
				raw[i] = byte(chance.Uint32())
			}
			if chance.IntN(4) == 0 {
				text = append(text, `"`+room+`"`...)
			}
			json = base64Alphabets[chance.IntN(2)].AppendEncode(append(json, text...), raw)
		}
		folded := fold(json, room)
		if got, err := unfold(folded, room); err != nil || !bytes.Equal(got, json) || cap(got) > cap(slices.Clone(json)) {
			t.Fatalf("%q is read as %q in the room of %d, %v", json, got, cap(got), err)
		}
		if len(folded) > len(json) {
			t.Fatalf("%q takes %d bytes instead of %d", json, len(folded), len(json))
		}
	}
	for _, bad := range []string{"\x01", "{\x01\x40abc", "\x01\xff", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if got, err := unfold([]byte(bad), room); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

// What is in databases must stay readable.
func TestTheDictionariesStayAsTheyAre(t *testing.T) {
	for _, stored := range []string{
		"01da0415000af0596f64635a746f796a3977793168394c526b4a446b55794463503350624731377a784f777057414b45756f59222c22246e7a78714e6c6c487a6a4670346245575871486665707945627037687862784575325770597530376f6134566501046120018d44616765206f662061206c6f616420746573743a1b053a6d010c3437383515000da8344a536a4b4249367661642b6e62532f514d3267416a5634564f4d3643536162336c5144747647727077736298012435373433343537343531469801a86d4b4156467444336756625630302d5a2d767874367268533869454a6a3049473539545a736d73676c6f593ac3017c323235334a36423249525358444633424e5646545a4e553536373a6f7572732e0df539e74862656e63682d34313332626338632d34303734362a00320402191a5d03f05e6d6163337631223a226443444275414d6d7332727163347542464e44644b53706c4b356a596c75304278704264433766647554334d562f49434d3732356a47386a337154713939666a53726b7a6b7347346e587667326841597a784d5a4451415a150010",
		"02fd0315000cf045a1d719b68ca3f70cb587d2d19090e45320dc3f73db1b5ef3c4ec29580284ba86222c222401409f3c6a365947ce3169e1b1165ea1df7a9c846e9ee1c5bc44bb65a962ed3ba1ae5658015c61206d657373616765206f662061206c6f616420746573743a1c053a60010c3437383515000f7ce094a328123abda77e9db4bf40cda002357854e33a09269bde5403b6f1aba70b62800124353734333435373435314e80017c98a01516d0f78156d5d34f99fafc6deab852f221098f4206e7d4d9b26b20968666a0016062656e63682d34313332626338632d343037343a6f7572732e0de736bd01191a3dbc146d616333763129bdf03f7420c1b80326b36aea738b8114d0dd292a652b98d896ed01c6905d0bb7ddb93dcc57f20233bdb98c6f23dea4eaf7d7e34ab93392c1b89d7be0da1018cf13190d21fd150010",
	} {
		was, err := hex.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decompress(was, room); err != nil || string(got) != message {
			t.Errorf("an event that was stored is read as %q, %v; now it is stored as %x", got, err, compress([]byte(message), room))
		}
	}
	for dictionary, hash := range map[string]string{
		dictionary1: "f537064d08c7df0f02bd6120febd06f9747cb8843c66b49cc4b7747199f428fb",
		dictionary2: "53e16671285828d86279852ee08d8fa4c8ba67714a70c4f1d73ed355cfb93c39",
	} {
		if sum := sha256.Sum256([]byte(dictionary)); hex.EncodeToString(sum[:]) != hash {
			t.Errorf("a dictionary has changed: its hash is %x, not %s", sum, hash)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	for b.Loop() {
		compress([]byte(message), room)
	}
}

func BenchmarkDecompress(b *testing.B) {
	stored := compress([]byte(message), room)
	for b.Loop() {
		if _, err := decompress(stored, room); err != nil {
			b.Fatal(err)
		}
	}
}
