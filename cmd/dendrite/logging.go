package main

import (
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/config"
)

// newLogger makes the logger of a process.
func newLogger(c config.Logging, process string) (*logrus.Entry, io.Closer, error) {
	logger := logrus.New()
	level, err := logrus.ParseLevel(c.Level)
	if err != nil {
		return nil, nil, fmt.Errorf("logging.level: %w", err)
	}
	logger.SetLevel(level)
	logger.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	if c.Format == "json" {
		logger.SetFormatter(&logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	}
	closer := io.NopCloser(nil)
	if c.File != "" {
		f, err := os.OpenFile(c.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("logging.file: %w", err)
		}
		logger.SetOutput(f)
		closer = f
	}
	return logger.WithField("process", process), closer, nil
}
