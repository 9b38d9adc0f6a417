package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// certificateCheck is how often a certificate's file is looked at.
const certificateCheck = time.Minute

// certificate is the one of a listener. It is read again when its file changes, as after a renewal.
type certificate struct {
	file, key string
	log       *logrus.Entry

	mu      sync.Mutex
	current *tls.Certificate
	changed time.Time // of the file
	next    time.Time // when to look again
}

func newCertificate(file, key string, log *logrus.Entry) (*certificate, error) {
	c := &certificate{file: file, key: key, log: log}
	return c, c.load()
}

func (c *certificate) load() error {
	info, err := os.Stat(c.file)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	c.next = time.Now().Add(certificateCheck)
	if c.current != nil && info.ModTime().Equal(c.changed) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.file, c.key)
	if err != nil {
		return fmt.Errorf("reading %s and %s: %w", c.file, c.key, err)
	}
	c.current, c.changed = &pair, info.ModTime()
	return nil
}

// get has the form that tls.Config asks for. A new file that cannot be read leaves the earlier certificate in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().After(c.next) {
		if err := c.load(); err != nil {
			c.next = time.Now().Add(certificateCheck)
			c.log.WithError(err).Error("listen.monolith.tls: the new certificate cannot be used")
		}
	}
	return c.current, nil
}
