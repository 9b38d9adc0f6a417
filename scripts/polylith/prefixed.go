package main

import (
	"bytes"
	"os"
)

// prefixed writes the lines of one process to the terminal, each with its name in front.
type prefixed struct {
	name string
	rest []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		if _, err := os.Stderr.Write([]byte(p.name + " | " + string(line) + "\n")); err != nil {
			return 0, err
		}
		p.rest = rest
	}
}
