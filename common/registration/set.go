package registration

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
)

// Set is all registrations of a server.
type Set struct {
	server  id.ServerName
	all     []*Registration
	byID    map[string]*Registration
	byToken map[[sha256.Size]byte]*Registration

	users, aliases, rooms *matcher
}

// NewSet checks registrations against each other. Each has been checked by itself.
func NewSet(server id.ServerName, all []*Registration) (*Set, error) {
	s := &Set{server: server, all: all, byID: make(map[string]*Registration), byToken: make(map[[sha256.Size]byte]*Registration)}
	users, aliases, rooms := newMatcher(), newMatcher(), newMatcher()
	senders := make(map[id.UserID]*Registration)
	for _, r := range all {
		token := sha256.Sum256([]byte(r.ASToken))
		switch other := s.byID[r.ID]; {
		case other != nil:
			return nil, fmt.Errorf("%s: id: %q is also the id in %s: each service needs its own", r.File, r.ID, other.File)
		case s.byToken[token] != nil:
			return nil, fmt.Errorf("%s: as_token: it is the same as in %s: each service needs its own", r.File, s.byToken[token].File)
		case senders[r.Sender] != nil:
			return nil, fmt.Errorf("%s: sender_localpart: it is the same as in %s: each service needs its own", r.File, senders[r.Sender].File)
		}
		s.byID[r.ID], s.byToken[token], senders[r.Sender] = r, r, r
		sender := Namespace{Regex: regexp.QuoteMeta(string(r.Sender)) + "$", Exclusive: true}
		if err := errors.Join(users.add(r, "users", append(slices.Clone(r.Users), sender)), aliases.add(r, "aliases", r.Aliases),
			rooms.add(r, "rooms", r.Rooms)); err != nil {
			return nil, err
		}
	}
	s.users, s.aliases, s.rooms = users, aliases, rooms
	return s, nil
}

// All lists the registrations in the order of their files.
func (s *Set) All() []*Registration { return s.all }

// Empty tells whether there is none.
func (s *Set) Empty() bool { return len(s.all) == 0 }

// WantsEphemeral tells whether some service wants what is ephemeral.
func (s *Set) WantsEphemeral() bool {
	return slices.ContainsFunc(s.all, (*Registration).WantsEphemeral)
}

// WantsPrivate tells whether some service wants what is ephemeral and private to a user who is in its namespace.
func (s *Set) WantsPrivate(user id.UserID) bool {
	return slices.ContainsFunc(s.Users(user), (*Registration).WantsEphemeral)
}

// ByID finds a registration; nil if there is none.
func (s *Set) ByID(service string) *Registration { return s.byID[service] }

// ByToken finds the service whose as_token this is; nil if it is nobody's. How long it takes tells nothing about tokens.
func (s *Set) ByToken(token string) *Registration {
	if token == "" || s.Empty() {
		return nil
	}
	r := s.byToken[sha256.Sum256([]byte(token))]
	if r == nil || subtle.ConstantTimeCompare([]byte(r.ASToken), []byte(token)) != 1 {
		return nil
	}
	return r
}

// Users lists the services whose user this is: their sender, or in a namespace of theirs. Only local users can be. What is
// returned by this and by the like is shared: it must not be changed.
func (s *Set) Users(user id.UserID) []*Registration { return s.localUser(user).is }

// ExclusiveUsers lists the services that alone may have this user: their sender, or in an exclusive namespace.
func (s *Set) ExclusiveUsers(user id.UserID) []*Registration { return s.localUser(user).exclusive }

func (s *Set) localUser(user id.UserID) match {
	if s.Empty() || user.Server() != s.server {
		return match{}
	}
	return s.users.match(string(user))
}

// Owns tells whether a service may act as a user.
func (s *Set) Owns(r *Registration, user id.UserID) bool { return has(s.Users(user), r) }

// Aliases lists the services with a namespace that has the alias.
func (s *Set) Aliases(alias id.RoomAlias) []*Registration { return s.aliases.match(string(alias)).is }

// Unlimited tells whether no rate limit counts for a user with a token of its own, because it is a service's alone whose users
// have no limits, or the service's own user.
func (s *Set) Unlimited(user id.UserID) bool {
	return slices.ContainsFunc(s.ExclusiveUsers(user), func(r *Registration) bool { return !r.RateLimited || r.Sender == user })
}

// OwnsAlias tells whether a namespace of a service has the alias.
func (s *Set) OwnsAlias(r *Registration, alias id.RoomAlias) bool { return has(s.Aliases(alias), r) }

// ExclusiveAliases lists the services that alone may have this alias.
func (s *Set) ExclusiveAliases(alias id.RoomAlias) []*Registration {
	return s.aliases.match(string(alias)).exclusive
}

// Rooms lists the services with a namespace that has the room.
func (s *Set) Rooms(room id.RoomID) []*Registration { return s.rooms.match(string(room)).is }

// ReservedUser tells whether a user is for others alone than the service by; nil stands for who is no service.
func (s *Set) ReservedUser(user id.UserID, by *Registration) bool {
	return reserved(s.ExclusiveUsers(user), by)
}

// ReservedAlias tells whether an alias is for others alone than the service by; nil stands for who is no service.
func (s *Set) ReservedAlias(alias id.RoomAlias, by *Registration) bool {
	return reserved(s.ExclusiveAliases(alias), by)
}

func reserved(owners []*Registration, by *Registration) bool {
	return len(owners) > 0 && !has(owners, by)
}

func has(list []*Registration, r *Registration) bool {
	return r != nil && slices.ContainsFunc(list, func(one *Registration) bool { return one.ID == r.ID })
}
