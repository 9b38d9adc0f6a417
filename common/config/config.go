// Package config reads dendrite-config.yaml, where every key is documented. A file that is loaded is complete: what it leaves
// out has its default, relative paths are relative to the file, and a key that is unknown or has no sense is an error that names
// the key and the fix.
package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
)

// Version is the version of the file's form.
const Version = 1

// Components are the names of all components, as in listen, peers and database.connection_strings.
var components = []string{"clientapi", "federationapi", "roomserver", "syncapi", "appservice", "typingserver", "mediaapi"}

// Components lists the names of all components, as in listen, peers and database.connection_strings.
func Components() []string { return append([]string(nil), components...) }

// Config is the whole file.
type Config struct {
	Version             int                 `yaml:"version"`
	Matrix              Matrix              `yaml:"matrix"`
	Media               Media               `yaml:"media"`
	TURN                TURN                `yaml:"turn"`
	Kafka               Kafka               `yaml:"kafka"`
	Database            Database            `yaml:"database"`
	Listen              Listen              `yaml:"listen"`
	TrustedProxies      []string            `yaml:"trusted_proxies"`
	MaxConnections      int                 `yaml:"max_connections_per_address"`
	Peers               map[string][]string `yaml:"peers"`
	InternalSecret      string              `yaml:"internal_secret"`
	Network             Network             `yaml:"network"`
	ApplicationServices ApplicationServices `yaml:"application_services"`
	Tracing             Tracing             `yaml:"tracing"`
	Metrics             Metrics             `yaml:"metrics"`
	Logging             Logging             `yaml:"logging"`
}

// Matrix is what the server is and allows.
type Matrix struct {
	ServerName         id.ServerName  `yaml:"server_name"`
	PublicBaseURL      string         `yaml:"public_base_url"`
	PrivateKey         string         `yaml:"private_key"`
	KeyValidity        time.Duration  `yaml:"key_validity"`
	WellKnown          WellKnown      `yaml:"well_known"`
	Registration       Registration   `yaml:"registration"`
	DefaultRoomVersion id.RoomVersion `yaml:"default_room_version"`
	PasswordHashCost   int            `yaml:"password_hash_cost"`
	RateLimits         RateLimits     `yaml:"rate_limits"`
	RoomDirectory      RoomDirectory  `yaml:"room_directory"`
	Presence           Presence       `yaml:"presence"`
	UserDirectory      UserDirectory  `yaml:"user_directory"`
	ServerNotices      ServerNotices  `yaml:"server_notices"`
}

// WellKnown is what /.well-known/matrix/* answers. What is empty is not answered.
type WellKnown struct {
	Client string `yaml:"client"`
	// ClientExtra are further members of what clients read, for the extensions that some of them look for.
	ClientExtra Members `yaml:"client_extra"`
	Server      string  `yaml:"server"`
	Support     Support `yaml:"support"`
	// PolicyServer is the ed25519 public key of the policy server of this name, in unpadded base64.
	PolicyServer string `yaml:"policy_server"`
}

// Support is /.well-known/matrix/support.
type Support struct {
	Page     string    `yaml:"page"`
	Contacts []Contact `yaml:"contacts"`
}

// Contact is one of Support's.
type Contact struct {
	Role     string    `yaml:"role" json:"role"`
	MatrixID id.UserID `yaml:"matrix_id" json:"matrix_id,omitempty"`
	Email    string    `yaml:"email" json:"email_address,omitempty"`
}

// Kinds of Registration.Verification.
const (
	VerificationNone  = "none"  // anybody may register
	VerificationToken = "token" // who has one of the tokens may
)

// Registration says how accounts are made.
type Registration struct {
	Enabled      bool     `yaml:"enabled"`
	Verification string   `yaml:"verification"`
	Tokens       []string `yaml:"tokens"`
	SharedSecret string   `yaml:"shared_secret"`
	Guests       bool     `yaml:"guests"`
}

// RateLimits has each limit by its name, which is the Limit of routes.
type RateLimits struct {
	Disabled bool                 `yaml:"disabled"`
	ByName   map[string]RateLimit `yaml:",inline"`
}

// RateLimit is a token bucket for each caller.
type RateLimit struct {
	PerSecond float64 `yaml:"per_second"`
	Burst     int     `yaml:"burst"`
}

// ServerNotices says how the operator's notices look to users. Without a localpart there are none.
type ServerNotices struct {
	Localpart   string `yaml:"localpart"` // of the user who sends them
	DisplayName string `yaml:"display_name"`
	AvatarURL   string `yaml:"avatar_url"`
	RoomName    string `yaml:"room_name"`
}

// NoticesUser sends server notices; empty: nobody does.
func (m *Matrix) NoticesUser() id.UserID {
	if m.ServerNotices.Localpart == "" {
		return ""
	}
	return id.NewUserID(m.ServerNotices.Localpart, m.ServerName)
}

// UserDirectory says whom a search for users finds.
type UserDirectory struct {
	// SearchAllUsers finds every local user, and not only those who share a room with whoever searches, or are in a public one.
	SearchAllUsers bool `yaml:"search_all_users"`
}

// Presence says whether users see who of those with whom they share rooms is online.
type Presence struct {
	Enabled bool `yaml:"enabled"`
}

// RoomDirectory says who may publish which rooms and aliases.
type RoomDirectory struct {
	Rules []DirectoryRule `yaml:"rules"`
}

// DirectoryRule applies where all its patterns match; they may have * and ?, and an absent one matches everything.
type DirectoryRule struct {
	User   string `yaml:"user"`
	Room   string `yaml:"room"`
	Alias  string `yaml:"alias"`
	Action string `yaml:"action"` // allow or deny
}

// Allows tells whether a user may publish a room in the directory, or, if alias is not empty, create that alias. The first rule
// that matches decides; if none does, it is allowed.
func (d RoomDirectory) Allows(user id.UserID, room id.RoomID, alias id.RoomAlias) bool {
	matches := func(pattern, s string) bool { return pattern == "" || glob.Match(pattern, s) }
	for _, r := range d.Rules {
		if matches(r.User, string(user)) && matches(r.Room, string(room)) && matches(r.Alias, string(alias)) {
			return r.Action == "allow"
		}
	}
	return true
}

// Media is the media repository's.
type Media struct {
	BasePath      string `yaml:"base_path"`
	MaxUploadSize int64  `yaml:"max_upload_size"` // bytes
}

// TURN is what /voip/turnServer answers.
type TURN struct {
	URIs         []string      `yaml:"uris"`
	UserLifetime time.Duration `yaml:"user_lifetime"`
	SharedSecret string        `yaml:"shared_secret"`
	Username     string        `yaml:"username"`
	Password     string        `yaml:"password"`
}

// Kafka is the broker of a polylith. Without addresses, components read each other's log directly.
type Kafka struct {
	Addresses         []string `yaml:"addresses"`
	TopicPrefix       string   `yaml:"topic_prefix"`
	ReplicationFactor int16    `yaml:"replication_factor"`
	TLS               KafkaTLS `yaml:"tls"`
	SASL              SASL     `yaml:"sasl"`
}

// KafkaTLS is how to reach a broker that speaks TLS.
type KafkaTLS struct {
	Enabled     bool   `yaml:"enabled"`
	CAFile      string `yaml:"ca_file"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// SASL is how to log in to a broker. Without a mechanism it is not done.
type SASL struct {
	Mechanism string `yaml:"mechanism"`
	Username  string `yaml:"username"`
	Password  string `yaml:"password"`
}

// Database says where data is kept.
type Database struct {
	ConnectionString   string            `yaml:"connection_string"`
	ConnectionStrings  map[string]string `yaml:"connection_strings"`
	MaxOpenConnections int               `yaml:"max_open_connections"`
}

// For is the connection string of a component.
func (d Database) For(component string) string {
	if s := d.ConnectionStrings[component]; s != "" {
		return s
	}
	return d.ConnectionString
}

// Listen has the addresses of each process. Nothing is listened on where an address is empty.
type Listen struct {
	Monolith      Monolith  `yaml:"monolith"`
	ClientAPI     Addresses `yaml:"clientapi"`
	FederationAPI Addresses `yaml:"federationapi"`
	SyncAPI       Addresses `yaml:"syncapi"`
	MediaAPI      Addresses `yaml:"mediaapi"`
	AppService    Addresses `yaml:"appservice"`
	Roomserver    Addresses `yaml:"roomserver"`
	Typingserver  Addresses `yaml:"typingserver"`
}

// Addresses are a component's.
type Addresses struct {
	Public   string `yaml:"public"`
	Internal string `yaml:"internal"`
}

// Monolith has the addresses of all components in one process.
type Monolith struct {
	Public   string `yaml:"public"`
	Internal string `yaml:"internal"`
	TLS      TLS    `yaml:"tls"`
}

// TLS is a second public listener, with a certificate.
type TLS struct {
	Address     string `yaml:"address"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// For is what a process of this name listens on: a component, or monolith.
func (l Listen) For(process string) Addresses {
	return map[string]Addresses{"clientapi": l.ClientAPI, "federationapi": l.FederationAPI, "syncapi": l.SyncAPI,
		"mediaapi": l.MediaAPI, "appservice": l.AppService, "roomserver": l.Roomserver, "typingserver": l.Typingserver,
		"monolith": {Public: l.Monolith.Public, Internal: l.Monolith.Internal}}[process]
}

// Networks reads networks, such as 10.0.0.0/8, and single addresses.
func Networks(list []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range list {
		network, err := netip.ParsePrefix(s)
		if err != nil {
			var address netip.Addr
			if address, err = netip.ParseAddr(s); err != nil {
				return nil, fmt.Errorf("%q is neither a network, such as 10.0.0.0/8, nor an address", s)
			}
			network = netip.PrefixFrom(address, address.BitLen())
		}
		all = append(all, network.Masked())
	}
	return all, nil
}

// Network is the policy for requests that leave the server.
type Network struct {
	AllowPrivate AllowPrivate      `yaml:"allow_private"`
	CAFiles      []string          `yaml:"ca_files"`
	Hosts        map[string]string `yaml:"hosts"`
}

// AllowPrivate lists, for each purpose, the networks that are reached although they are private.
type AllowPrivate struct {
	Federation          []string `yaml:"federation"`
	Push                []string `yaml:"push"`
	ApplicationServices []string `yaml:"application_services"`
	Previews            []string `yaml:"previews"`
}

// ApplicationServices says where registrations are.
type ApplicationServices struct {
	ConfigFiles []string `yaml:"config_files"`
	ConfigDir   string   `yaml:"config_dir"`
}

// Tracing says where spans go.
type Tracing struct {
	Enabled bool   `yaml:"enabled"`
	Jaeger  Jaeger `yaml:"jaeger"`
}

// Jaeger is a collector, reached through its agent by UDP or at its own URL.
type Jaeger struct {
	Agent     string  `yaml:"agent"`
	Collector string  `yaml:"collector"`
	Sampling  float64 `yaml:"sampling"`
}

// Metrics says whether internal listeners serve /metrics, and to whom where they are not on loopback.
type Metrics struct {
	Enabled bool   `yaml:"enabled"`
	Token   string `yaml:"token"`
}

// Logging says how much is logged, and where to.
type Logging struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
	File   string `yaml:"file"`
}
