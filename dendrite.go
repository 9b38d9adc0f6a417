// Package dendrite holds what belongs to the project as a whole: its version and its sample configuration.
package dendrite

import _ "embed"

// Version is this release's, as /_matrix/federation/v1/version and `dendrite --version` say it.
const Version = "0.1.0"

// SampleConfig is dendrite-config.yaml: every key with its default and what it means. `dendrite generate-config` fills it in.
//
//go:embed dendrite-config.yaml
var SampleConfig string
