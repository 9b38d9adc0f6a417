package blackbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/test"
)

const (
	keyAlgorithm = "signed_curve25519"
	keysEnough   = 200 // that a device has, so that the server takes all that it uploads
)

// keyOwner is a device whose keys others claim.
type keyOwner struct {
	*client
	keys     *cryptoDevice
	fallback string // its id

	uploading sync.Mutex // one upload is after the other
	uploads   []object
	mutex     sync.Mutex
	batches   map[string]int    // by id of a key, which upload it was in
	values    map[string]string // by id of a key
	there     []time.Time       // by upload, when it was answered
	given     []givenKey
	taken     int // keys that were given, but for the fallback key
	unheard   int // claims without an answer
}

// givenKey is the answer to a claim.
type givenKey struct {
	id         string
	batch      int // -1: it is the fallback key
	began, end time.Time
}

// Keys are uploaded, and uploaded again, while others claim them.
func killClaims(t *testing.T, d *deployment, seed uint64) {
	units, kills := test.Soak(600, 6000), test.Soak(4, 20)
	work := newToil(t)
	var owners []*keyOwner
	for i := range 6 {
		o := &keyOwner{client: d.user(t, fmt.Sprintf("owner%d", i)), batches: make(map[string]int),
			values: make(map[string]string)}
		o.keys = o.crypto()
		fallback := o.keys.fallbackKey()
		for name := range fallback {
			o.fallback = name
		}
		o.must("POST", at("keys", "upload"), object{"device_keys": o.keys.deviceKeys(), "fallback_keys": fallback})
		owners = append(owners, o)
	}
	for i := range 10 {
		claimer, random := d.user(t, "claimer"), rand.New(rand.NewPCG(seed, 6<<32+uint64(i)))
		work.work(func(ctx context.Context, _ int) error {
			if random.IntN(6) == 0 {
				return pick(random, owners).upload(ctx, work, random)
			}
			return claim(ctx, work, claimer, owners[:1+random.IntN(len(owners))], random)
		})
	}
	work.under(d, rand.New(rand.NewPCG(seed, 7<<32)), units, kills, "clientapi", "syncapi")
	work.await("all is claimed", &work.workers)
	stranger := d.user(t, "stranger")
	for _, o := range owners {
		o.drain(stranger)
		o.check()
	}
}

// upload uploads some keys of which the ids do not tell their order, and perhaps others once more.
func (o *keyOwner) upload(ctx context.Context, work *toil, random *rand.Rand) error {
	o.uploading.Lock()
	defer o.uploading.Unlock()
	batch, keys := len(o.uploads), object{}
	o.mutex.Lock()
	if len(o.batches)-o.taken > keysEnough {
		o.mutex.Unlock()
		return nil
	}
	for range 1 + random.IntN(20) {
		name := fmt.Sprintf("%s:%c%05d", keyAlgorithm, 'A'+random.IntN(26), len(o.batches))
		key := o.keys.sign(object{"key": unpadded(randomBytes(32))})
		keys[name], o.batches[name], o.values[name] = key, batch, key["key"].(string)
	}
	o.mutex.Unlock()
	o.uploads = append(o.uploads, object{"one_time_keys": keys})
	if _, err := work.insist(ctx, o.client, "POST", at("keys", "upload"), o.uploads[batch]); err != nil {
		return err
	}
	o.mutex.Lock()
	o.there = append(o.there, time.Now())
	o.mutex.Unlock()
	again := batch
	switch random.IntN(4) {
	case 0:
		again = max(0, batch-random.IntN(5)) // of which keys the server remembers all that it gave
	case 1: // that one
	default:
		return nil
	}
	_, err := work.insist(ctx, o.client, "POST", at("keys", "upload"), o.uploads[again])
	return err
}

// claim claims keys of one to three of the devices.
func claim(ctx context.Context, work *toil, c *client, owners []*keyOwner, random *rand.Rand) error {
	asks, of := object{}, make(map[*keyOwner]bool)
	for range 1 + random.IntN(3) {
		o := pick(random, owners)
		asks[o.userID], of[o] = object{o.deviceID: keyAlgorithm}, true
	}
	began := time.Now()
	answer, failures, err := c.insist(ctx, "POST", at("keys", "claim"), object{"one_time_keys": asks})
	if err != nil {
		return err
	}
	work.failing.Add(int64(failures))
	for o := range of {
		if err := o.took(began, failures, answer); err != nil {
			return err
		}
	}
	return nil
}

// took notes what a claim got of the device's keys, after so many that were not answered.
func (o *keyOwner) took(began time.Time, unheard int, answer gjson.Result) error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.unheard += unheard
	keys := answer.Get("one_time_keys." + escape(o.userID) + "." + escape(o.deviceID)).Map()
	if len(keys) != 1 {
		return fmt.Errorf("a claim of a key of %s, who has a fallback key, brings %s", o.userID, answer.Raw)
	}
	for name, key := range keys {
		g := givenKey{id: name, batch: -1, began: began, end: time.Now()}
		if name != o.fallback {
			batch, is := o.batches[name]
			if !is || key.Get("key").Str != o.values[name] {
				return fmt.Errorf("a claim of a key of %s brings %s: %s", o.userID, name, key.Raw)
			}
			g.batch = batch
			o.taken++
		}
		o.given = append(o.given, g)
	}
	return nil
}

// drain claims what is left of the device's keys, and then the fallback key.
func (o *keyOwner) drain(stranger *client) {
	o.t.Helper()
	left := o.must("POST", at("keys", "upload"), object{}).Get("one_time_key_counts." + keyAlgorithm).Int()
	equal(o.t, "the count in sync", o.sync("").Get("device_one_time_keys_count."+keyAlgorithm).Int(), left)
	lost := len(o.batches) - o.taken - int(left)
	if lost < 0 || lost > o.unheard {
		o.t.Errorf("of %d keys %d are left, which loses %d in %d claims without an answer", len(o.batches), left, lost,
			o.unheard)
	}
	asks := object{"one_time_keys": object{o.userID: object{o.deviceID: keyAlgorithm}}}
	for range left + 2 {
		began := time.Now()
		if err := o.took(began, 0, stranger.must("POST", at("keys", "claim"), asks)); err != nil {
			o.t.Fatal(err)
		}
	}
	for i, g := range o.given[len(o.given)-int(left)-2:] {
		if isFallback := g.batch < 0; isFallback != (i >= int(left)) {
			o.t.Errorf("of %d keys, claim %d brings the fallback key: %t", left, i, isFallback)
		}
	}
	answer := o.sync("")
	if count := answer.Get("device_one_time_keys_count." + keyAlgorithm); !count.Exists() || count.Int() != 0 {
		o.t.Errorf("all keys are claimed, and sync says %s", answer.Get("device_one_time_keys_count").Raw)
	}
	equal(o.t, "unused fallback keys", answer.Get("device_unused_fallback_key_types").Raw, "[]")
	o.t.Logf("%d keys in %d uploads, %d claims; %d were left at the end, %d lost in %d claims without an answer",
		len(o.batches), len(o.uploads), len(o.given), left, lost, o.unheard)
}

// check makes sure that no key was given twice, none before an older one, and the fallback key only where there was no
// other. One fault says enough.
func (o *keyOwner) check() {
	o.t.Helper()
	seen := make(map[string]bool)
	for i, g := range o.given {
		if g.batch >= 0 && seen[g.id] {
			o.t.Errorf("%s of %s was given twice", g.id, o.userID)
			return
		}
		seen[g.id] = true
		for _, later := range o.given {
			switch {
			case !g.end.Before(later.began) || later.batch < 0: // it was not before
			case g.batch > later.batch:
				o.t.Errorf("%s of upload %d was given before %s of upload %d", g.id, g.batch, later.id, later.batch)
				return
			case g.batch < 0 && o.there[later.batch].Before(g.began):
				o.t.Errorf("claim %d got the fallback key, and %s was there", i, later.id)
				return
			}
		}
	}
}
