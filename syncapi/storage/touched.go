package storage

import "github.com/matrix-org/dendrite/common/id"

// Kind is a stream of what clients are told. Replicas tell each other kinds by these names: a name never gets another
// meaning.
type Kind string

// The kinds, with whom and what they concern.
const (
	KindTimeline    Kind = "timeline"     // a room's rows
	KindReceipts    Kind = "receipts"     // a room's; of a user, if others may not see them
	KindCounts      Kind = "counts"       // what is unread in a room, of all or of a user, but for what rows say
	KindAccountData Kind = "account_data" // a user's
	KindSettings    Kind = "settings"     // a user's account data that decides what they are shown
	KindMemberships Kind = "memberships"  // a user's, in a room
	KindPushers     Kind = "pushers"      // a user's
	KindToDevice    Kind = "to_device"    // messages to a device
	KindKeyCounts   Kind = "key_counts"   // keys of a device that can be claimed
	// KindDeviceLists: a user's keys have changed, with Room for all who are joined there, without for the user alone.
	KindDeviceLists Kind = "device_lists"
	// KindDeviceListsAnywhere: a user's keys have changed, in rooms that are too many to be told.
	KindDeviceListsAnywhere Kind = "device_lists_anywhere"
	KindSignedUsers         Kind = "signed_users" // keys of others have changed as the user, and nobody else, sees them
)

// Touched names what has changed, and for whom: a device of a user, all devices of a user, or, without a user, all who
// are in a room.
type Touched struct {
	Kind   Kind        `json:"kind"`
	User   id.UserID   `json:"user,omitempty"`
	Device id.DeviceID `json:"device,omitempty"`
	Room   id.RoomID   `json:"room,omitempty"`
}

// AllTouched is what the rows touch, and what has no rows here, each once. It is never nil.
func (c *Changes) AllTouched() []Touched {
	all := []Touched{}
	seen := make(map[Touched]struct{})
	add := func(t Touched) {
		if _, has := seen[t]; !has {
			seen[t] = struct{}{}
			all = append(all, t)
		}
	}
	for i := range c.Timeline {
		add(Touched{Kind: KindTimeline, Room: c.Timeline[i].RoomID})
	}
	for i := range c.Receipts {
		r := &c.Receipts[i]
		t := Touched{Kind: KindReceipts, Room: r.RoomID}
		if r.Type == ReadPrivate {
			t.User = r.UserID
		}
		add(t)
	}
	for i := range c.Mentions {
		add(Touched{Kind: KindCounts, User: c.Mentions[i].UserID, Room: c.Mentions[i].RoomID})
	}
	for i := range c.AccountData {
		a := &c.AccountData[i]
		add(Touched{Kind: KindAccountData, User: a.UserID})
		switch a.Type {
		case PushRules, IgnoredUsers, InvitePermission:
			add(Touched{Kind: KindSettings, User: a.UserID})
		}
	}
	for i := range c.Memberships {
		add(Touched{Kind: KindMemberships, User: c.Memberships[i].UserID, Room: c.Memberships[i].RoomID})
	}
	for i := range c.DeviceKeys {
		add(Touched{Kind: KindKeyCounts, User: c.DeviceKeys[i].UserID, Device: c.DeviceKeys[i].DeviceID})
	}
	for _, t := range touchedByMessages(c.ToDevice) {
		add(t)
	}
	for _, t := range c.Touched {
		add(t)
	}
	return all
}
