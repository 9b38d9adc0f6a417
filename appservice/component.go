// Package appservice is the component for application services. It has no endpoints yet.
package appservice

import (
	"context"

	"github.com/matrix-org/dendrite/common/component"
)

// New builds the component.
func New(_ context.Context, _ component.Deps) (*component.Component, error) {
	return &component.Component{Name: "appservice"}, nil
}
