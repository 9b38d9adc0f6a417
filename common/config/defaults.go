package config

import (
	"maps"
	"time"

	"github.com/matrix-org/dendrite/common/roomversion"
)

// defaultRateLimits are all limits that there are. Route.Limit is one of these names.
var defaultRateLimits = map[string]RateLimit{
	"registration":    {PerSecond: 0.2, Burst: 5},
	"login":           {PerSecond: 0.5, Burst: 10},
	"password":        {PerSecond: 0.1, Burst: 100},
	"password_beyond": {PerSecond: 0.001, Burst: 2},
	"admin":           {PerSecond: 10, Burst: 100},
	"message":         {PerSecond: 10, Burst: 50},
	"room":            {PerSecond: 0.5, Burst: 20},
	"membership":      {PerSecond: 2, Burst: 30},
	"invite":          {PerSecond: 1, Burst: 20},
	"profile":         {PerSecond: 1, Burst: 10},
	"directory":       {PerSecond: 5, Burst: 30},
	"ephemeral":       {PerSecond: 10, Burst: 50},
	"to_device":       {PerSecond: 10, Burst: 200}, // a room's key goes to hundreds of devices at once, 20 in a request
	"account_data":    {PerSecond: 10, Burst: 50},
	"media":           {PerSecond: 5, Burst: 50},
	"keys":            {PerSecond: 10, Burst: 50},
}

// Default is a configuration in which every key has its default. server_name, private_key and the secrets have none.
func Default() *Config {
	at := func(public, internal string) Addresses {
		return Addresses{Public: loopback(public), Internal: loopback(internal)}
	}
	c := &Config{
		Version: Version,
		Matrix: Matrix{
			PrivateKey:         "matrix_key.pem",
			KeyValidity:        7 * 24 * time.Hour,
			Registration:       Registration{Verification: VerificationToken},
			DefaultRoomVersion: roomversion.Default,
			PasswordHashCost:   10,
			Presence:           Presence{Enabled: true},
			ServerNotices:      ServerNotices{Localpart: "server-notices", DisplayName: "Server notices", RoomName: "Server notices"},
			RateLimits:         RateLimits{ByName: maps.Clone(defaultRateLimits)},
		},
		Media:    Media{BasePath: "media", MaxUploadSize: 100 << 20},
		TURN:     TURN{UserLifetime: time.Hour},
		Kafka:    Kafka{TopicPrefix: "dendrite_", ReplicationFactor: 1},
		Database: Database{ConnectionString: "file:dendrite.db", MaxOpenConnections: 20},
		Listen: Listen{
			Monolith:      Monolith{Public: "127.0.0.1:8008", TLS: TLS{Address: ":8448"}},
			ClientAPI:     at("7771", "7871"),
			FederationAPI: at("7772", "7872"),
			SyncAPI:       at("7773", "7873"),
			MediaAPI:      at("7774", "7874"),
			AppService:    at("7777", "7877"),
			Roomserver:    at("", "7870"),
			Typingserver:  at("", "7878"),
		},
		// The URL of a service is written by the operator, and most bridges run beside the server.
		Network: Network{AllowPrivate: AllowPrivate{ApplicationServices: []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12",
			"192.168.0.0/16", "fc00::/7"}}},
		TrustedProxies: []string{"127.0.0.0/8", "::1/128"},
		MaxConnections: 1000,

		Peers:   make(map[string][]string),
		Tracing: Tracing{Jaeger: Jaeger{Agent: "127.0.0.1:6831", Sampling: 1}},
		Metrics: Metrics{Enabled: true},
		Logging: Logging{Level: "info", Format: "text"},
	}
	for _, component := range components {
		c.Peers[component] = []string{"http://" + c.Listen.For(component).Internal}
	}
	return c
}

func loopback(port string) string {
	if port == "" {
		return ""
	}
	return "127.0.0.1:" + port
}
