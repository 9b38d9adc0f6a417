// Package mediaapi is the component of the media repository. It has no endpoints yet.
package mediaapi

import (
	"context"

	"github.com/matrix-org/dendrite/common/component"
)

// New builds the component.
func New(_ context.Context, _ component.Deps) (*component.Component, error) {
	return &component.Component{Name: "mediaapi"}, nil
}
