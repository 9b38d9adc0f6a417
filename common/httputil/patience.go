package httputil

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Patience is how long a server waits for a client that does nothing. Any progress begins the time anew, so that slow
// clients are served, and those that have stopped hold neither a connection nor an answer. Long polls have nothing to
// send and are not touched.
type Patience struct {
	// Body is how long the next piece of a body may take that is being read.
	Body time.Duration
	// Unread is how long a body may take that nobody reads: the answer does not need it, and HTTP/1 needs it only to
	// use the connection again.
	Unread time.Duration
	// Write is how long a client may take to read some of what it is sent.
	Write time.Duration
}

// DefaultPatience is that of a server.
func DefaultPatience() Patience {
	return Patience{Body: 30 * time.Second, Unread: 5 * time.Second, Write: 30 * time.Second}
}

// Serve makes a handler that waits with patience for the bodies of requests, and for readers of answers over HTTP/2,
// where many share a connection. Those of HTTP/1 are waited for in Listen.
func (p Patience) Serve(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			s := &streamWriter{ResponseWriter: w, control: http.NewResponseController(w), pause: p.Write}
			defer s.extend() // the server sends the rest after this
			w = s
		}
		if r.Body == nil || r.Body == http.NoBody {
			h.ServeHTTP(w, r)
			return
		}
		b := &pacedBody{ReadCloser: r.Body, control: http.NewResponseController(w), patience: p}
		b.wait(p.Unread)
		defer b.end()
		paced := *r // net/http looks at the body of the request that it made
		paced.Body = b
		h.ServeHTTP(w, &paced)
	})
}

// errLate is why a body could not be read whose client took too long.
var errLate = errors.New("the client took too long to send the body")

// pacedBody is a body whose pieces must come in time.
type pacedBody struct {
	io.ReadCloser
	control  *http.ResponseController
	patience Patience

	mu    sync.Mutex
	until time.Time // the whole must be there; zero: there is no such time
	read  bool      // some of it was asked for
	over  bool      // it is read, or broken, or its handler is: deadlines are the server's again
}

// wait gives the client some time for the next piece. A connection that knows no deadlines, such as a test's, has none.
func (b *pacedBody) wait(pause time.Duration) {
	at := time.Now().Add(pause)
	if !b.until.IsZero() && b.until.Before(at) {
		at = b.until
	}
	_ = b.control.SetReadDeadline(at)
}

// within sets the time in which the whole body must come.
func (b *pacedBody) within(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = time.Now().Add(d)
}

func (b *pacedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.read = true; !b.over {
		b.wait(b.patience.Body)
	}
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// The server reads on in the background once it has seen the end, to notice when the client goes: that has no
	// deadline.
	if !b.over && errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.over = true
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.Join(errLate, err)
	}
	return n, err
}

// end leaves what was not read to the server, which looks for the next request behind it.
func (b *pacedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read && !b.over { // who was not asked for any had the time of the handler already
		b.wait(b.patience.Unread)
	}
	b.over = true
}

// streamPiece is how much of an answer over HTTP/2 must be taken in time.
const streamPiece = 16 << 10

var streamPieces = sync.Pool{New: func() any { return new([streamPiece]byte) }}

// streamWriter writes an answer over HTTP/2. It copies what it is given: the server may go on reading a piece that
// failed.
type streamWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	pause   time.Duration
}

// Unwrap is for http.ResponseController.
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *streamWriter) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.pause)) }

func (w *streamWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		piece, _ := streamPieces.Get().(*[streamPiece]byte)
		n := copy(piece[:], p)
		w.extend()
		if n, err = w.ResponseWriter.Write(piece[:n]); err != nil {
			return written + n, err
		}
		streamPieces.Put(piece)
		written, p = written+n, p[n:]
	}
	_ = w.control.SetWriteDeadline(time.Time{})
	return written, nil
}

// Flush sends what is written so far.
func (w *streamWriter) Flush() {
	w.extend()
	_ = w.control.Flush() // it fails as the next Write does
	_ = w.control.SetWriteDeadline(time.Time{})
}

// Listen makes a listener whose connections end when the other side reads nothing of what it is sent.
func (p Patience) Listen(l net.Listener) net.Listener { return &patientListener{l, p.Write} }

type patientListener struct {
	net.Listener
	pause time.Duration
}

func (l *patientListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: c, pause: l.pause}, nil
}

// patientConn writes as long as the other side reads.
type patientConn struct {
	net.Conn
	pause time.Duration
	// until is a deadline that was set on it, in Unix nanoseconds; 0: none.
	until atomic.Int64
}

func (c *patientConn) Write(p []byte) (written int, err error) {
	for {
		at := time.Now().Add(c.pause)
		until := c.until.Load()
		if until != 0 && until < at.UnixNano() {
			at = time.Unix(0, until)
		}
		if err := c.Conn.SetWriteDeadline(at); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:])
		written += n
		if n == 0 || written == len(p) || !errors.Is(err, os.ErrDeadlineExceeded) ||
			until != 0 && time.Now().UnixNano() >= until {
			return written, err
		}
	}
}

// SetWriteDeadline ends writing at a time, progress or not.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is SetWriteDeadline for reading, too.
func (c *patientConn) SetDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetDeadline(t)
}

func (c *patientConn) note(t time.Time) {
	if t.IsZero() {
		c.until.Store(0)
	} else {
		c.until.Store(t.UnixNano())
	}
}

// CloseWrite lets a client read the last answer of a connection that it is still writing to.
func (c *patientConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, can := c.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return nil
}
