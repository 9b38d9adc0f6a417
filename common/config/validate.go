package config

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// Validate checks what every process needs. Each error names a key and the fix; they are joined.
func (c *Config) Validate() error {
	p := new(problems)
	p.matrix(&c.Matrix)
	p.storage(c)
	p.listen(&c.Listen)
	p.network(&c.Network)
	_, err := Networks(c.TrustedProxies)
	p.check(err == nil, "trusted_proxies", "%v", err)
	p.check(c.MaxConnections > 0, "max_connections_per_address", "must be a number greater than 0")
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		p.oneOf("peers", name, components)
		for _, s := range c.Peers[name] {
			u, err := url.Parse(s)
			p.check(err == nil && u.Scheme == "http" && u.Host != "" && strings.Trim(u.Path, "/") == "", "peers."+name,
				"%q is not the URL of an internal listener: write http://host:port", s)
		}
	}
	p.oneOf("logging.format", c.Logging.Format, []string{"text", "json"})
	_, err = logrus.ParseLevel(c.Logging.Level)
	p.check(err == nil, "logging.level", "%q is no level: write one of debug, info, warn, error", c.Logging.Level)
	p.check(c.Metrics.Token == "" || len(c.Metrics.Token) >= 16, "metrics.token", "must have at least 16 characters")
	p.check(c.Tracing.Jaeger.Sampling >= 0 && c.Tracing.Jaeger.Sampling <= 1, "tracing.jaeger.sampling", "must be from 0 to 1")
	p.check(!c.Tracing.Enabled || c.Tracing.Jaeger.Agent != "" || c.Tracing.Jaeger.Collector != "", "tracing.jaeger",
		"tracing is enabled: give agent or collector")
	p.check(c.Media.MaxUploadSize > 0, "media.max_upload_size", "must be a number of bytes greater than 0")
	p.check(len(c.TURN.URIs) == 0 || c.TURN.SharedSecret != "" || c.TURN.Username != "" && c.TURN.Password != "", "turn",
		"there are uris: give shared_secret, or username and password")
	return errors.Join(*p...)
}

// CheckPolylith checks what a component in a process of its own needs besides.
func (c *Config) CheckPolylith() error {
	p := new(problems)
	p.check(len(c.InternalSecret) >= 16, "internal_secret", "components in processes of their own need a common secret of at least 16 characters")
	p.check(len(c.Kafka.Addresses) > 0, "kafka.addresses", "components in processes of their own need a broker: write a list of host:port")
	for _, component := range components {
		p.check(!strings.HasPrefix(c.Database.For(component), "file:"), "database", "SQLite is for the monolith: give %s a connection string that begins with postgresql://", component)
	}
	return errors.Join(*p...)
}

type problems []error

func (p *problems) check(ok bool, key, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
}

func (p *problems) oneOf(key, value string, known []string) {
	hint := "write one of " + strings.Join(known, ", ")
	if near := nearest(value, known); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	p.check(slices.Contains(known, value), key, "%q is not known: %s", value, hint)
}

func (p *problems) url(key, s string) {
	u, err := url.Parse(s)
	p.check(s == "" || err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "", key, "%q is no URL: write https://host", s)
}

func (p *problems) matrix(m *Matrix) {
	if m.ServerName == "" {
		p.check(false, "matrix.server_name", "is missing: write the name that user ids end with, such as example.org")
	} else if _, err := id.ParseServerName(string(m.ServerName)); err != nil {
		p.check(false, "matrix.server_name", "%v", err)
	}
	p.check(m.PrivateKey != "", "matrix.private_key", "is missing: name the file that `dendrite generate-keys` makes")
	p.check(m.KeyValidity > 0, "matrix.key_validity", "must be a time such as 168h")
	p.url("matrix.public_base_url", m.PublicBaseURL)
	p.url("matrix.well_known.client", m.WellKnown.Client)
	p.check(len(m.WellKnown.ClientExtra) == 0 || m.WellKnown.Client != "", "matrix.well_known.client_extra",
		"is not answered without matrix.well_known.client: set both")
	_, reserved := m.WellKnown.ClientExtra["m.homeserver"]
	p.check(!reserved, "matrix.well_known.client_extra", "m.homeserver is made of matrix.well_known.client: leave it out")
	_, err := json.Marshal(m.WellKnown.ClientExtra)
	p.check(err == nil, "matrix.well_known.client_extra", "cannot be written as JSON: %v", err)
	if m.WellKnown.Server != "" {
		_, err := id.ParseServerName(m.WellKnown.Server)
		p.check(err == nil, "matrix.well_known.server", "%q is not of the form host or host:port", m.WellKnown.Server)
	}
	for i, contact := range m.WellKnown.Support.Contacts {
		key := fmt.Sprintf("matrix.well_known.support.contacts[%d]", i)
		p.oneOf(key+".role", contact.Role, []string{"m.role.admin", "m.role.security", "m.role.moderator", "m.role.dpo"})
		p.check(contact.Email != "" || contact.MatrixID != "", key, "give email or matrix_id")
	}
	if key := m.WellKnown.PolicyServer; key != "" {
		raw, err := base64.RawStdEncoding.DecodeString(key)
		p.check(err == nil && len(raw) == ed25519.PublicKeySize, "matrix.well_known.policy_server", "%q is no ed25519 public key in unpadded base64", key)
	}
	p.url("matrix.well_known.support.page", m.WellKnown.Support.Page)
	r := m.Registration
	p.oneOf("matrix.registration.verification", r.Verification, []string{VerificationNone, VerificationToken})
	p.check(!r.Enabled || r.Verification != VerificationToken || len(r.Tokens) > 0, "matrix.registration.tokens",
		"registration is enabled for who has a token, and there are none: list some, or open it to everybody with `verification: none`")
	_, known := roomversion.Get(m.DefaultRoomVersion)
	p.check(known, "matrix.default_room_version", "%q is none: write one of %v, in quotes", m.DefaultRoomVersion, roomversion.All())
	p.check(m.PasswordHashCost >= 4 && m.PasswordHashCost <= 31, "matrix.password_hash_cost", "must be from 4 to 31: 10 is usual")
	for name, limit := range m.RateLimits.ByName {
		if _, has := defaultRateLimits[name]; !has {
			p.oneOf("matrix.rate_limits", name, slices.Sorted(maps.Keys(defaultRateLimits)))
			continue
		}
		p.check(limit.PerSecond > 0 && limit.Burst > 0, "matrix.rate_limits."+name, "needs per_second and burst greater than 0")
	}
	if user := m.NoticesUser(); user != "" {
		parsed, err := id.ParseUserID(string(user))
		p.check(err == nil && parsed.Localpart() == m.ServerNotices.Localpart, "matrix.server_notices.localpart", "%q cannot be the name of a user", m.ServerNotices.Localpart)
	}
	for i, rule := range m.RoomDirectory.Rules {
		p.oneOf(fmt.Sprintf("matrix.room_directory.rules[%d].action", i), rule.Action, []string{"allow", "deny"})
	}
}

func (p *problems) storage(c *Config) {
	known := func(key, s string) {
		ok := slices.ContainsFunc([]string{"postgres://", "postgresql://", "file:"}, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
		p.check(ok, key, "must begin with postgresql:// or, for SQLite, with file:")
	}
	known("database.connection_string", c.Database.ConnectionString)
	for _, component := range slices.Sorted(maps.Keys(c.Database.ConnectionStrings)) {
		p.oneOf("database.connection_strings", component, components)
		known("database.connection_strings."+component, c.Database.ConnectionStrings[component])
	}
	p.check(c.Database.MaxOpenConnections > 0, "database.max_open_connections", "must be greater than 0")
	for _, a := range c.Kafka.Addresses {
		p.address("kafka.addresses", a)
	}
	p.check(c.Kafka.ReplicationFactor > 0, "kafka.replication_factor", "must be greater than 0")
	if c.Kafka.SASL.Mechanism != "" {
		p.oneOf("kafka.sasl.mechanism", c.Kafka.SASL.Mechanism, []string{"PLAIN"})
	}
	p.check((c.Kafka.TLS.Certificate == "") == (c.Kafka.TLS.Key == ""), "kafka.tls", "give certificate and key, or neither")
}

func (p *problems) address(key, s string) {
	_, port, err := net.SplitHostPort(s)
	p.check(err == nil && port != "", key, "%q must have the form host:port", s)
}

func (p *problems) listen(l *Listen) {
	for _, process := range append(Components(), "monolith") {
		a := l.For(process)
		for kind, address := range map[string]string{"public": a.Public, "internal": a.Internal} {
			if address != "" {
				p.address("listen."+process+"."+kind, address)
			}
		}
	}
	t := l.Monolith.TLS
	p.check((t.Certificate == "") == (t.Key == ""), "listen.monolith.tls", "give certificate and key, or neither")
	if t.Certificate != "" {
		p.address("listen.monolith.tls.address", t.Address)
	}
}

func (p *problems) network(n *Network) {
	for key, list := range map[string][]string{"federation": n.AllowPrivate.Federation, "push": n.AllowPrivate.Push,
		"application_services": n.AllowPrivate.ApplicationServices, "previews": n.AllowPrivate.Previews} {
		for _, s := range list {
			_, err := netip.ParsePrefix(s)
			p.check(err == nil, "network.allow_private."+key, "%q is no network: write it like 10.0.0.0/8", s)
		}
	}
	for host, address := range n.Hosts {
		_, err := netip.ParseAddrPort(address)
		if err != nil {
			_, err = netip.ParseAddr(address)
		}
		p.check(err == nil, "network.hosts."+host, "%q is neither an IP address nor one with a port", address)
	}
}
