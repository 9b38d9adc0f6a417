package main

import (
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/rpc"
)

// internalHandler serves what is between processes: calls of contracts, health, metrics, profiles, and public requests that the front
// door of another process has passed on.
func (p *process) internalHandler(public *httputil.Router) (http.Handler, error) {
	// Paths are taken as they come: one that is passed on must arrive as it was sent.
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	for _, c := range p.components {
		if c.API == nil {
			continue
		}
		err := rpc.Serve(r.PathPrefix("/rpc/"+c.Name+"/").Subrouter(), "", c.Name, c.API, rpc.Options{Secret: p.config.InternalSecret, Tracer: p.tracer,
			Registerer: p.metrics, Log: p.log})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	r.HandleFunc("/health", p.health)
	if p.config.Metrics.Enabled {
		r.Handle("/metrics", p.shown(promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{Registry: p.metrics})))
	}
	profiles := http.NewServeMux()
	profiles.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
	profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
	profiles.HandleFunc("/debug/pprof/", pprof.Index)
	r.PathPrefix("/debug/pprof/").Handler(bearing(profiles, p.config.InternalSecret, "internal_secret"))

	local := public.Local()
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !rpc.Authorized(req, p.config.InternalSecret) {
			http.Error(w, "this is the internal listener: public requests go to the public one", http.StatusForbidden)
			return
		}
		rpc.Unauthorize(req)
		local.ServeHTTP(w, req)
	})
	return r, nil
}

// shown serves metrics: to everybody on this machine, where only it is listened to, and else to who has the token.
func (p *process) shown(metrics http.Handler) http.Handler {
	if host, _, err := net.SplitHostPort(p.addresses.Internal); err == nil &&
		(host == "localhost" || net.ParseIP(host).IsLoopback()) {
		return metrics
	}
	if p.config.Metrics.Token != "" {
		return bearing(metrics, p.config.Metrics.Token, "metrics.token")
	}
	return bearing(metrics, p.config.InternalSecret, "internal_secret")
}

// bearing serves those who send a secret of the configuration as bearer token. There is no secret that is empty.
func bearing(h http.Handler, secret, key string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, has := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if secret == "" || !has || subtle.ConstantTimeCompare([]byte(token), []byte(secret)) != 1 {
			http.Error(w, "send the "+key+" of this server's configuration as bearer token", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// health is GET /health: 200 if the process can do its work, else 503 with the reason.
func (p *process) health(w http.ResponseWriter, req *http.Request) {
	if err := p.ready(req.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeText(w, "ok\n")
}

func (p *process) healthWhileStarting(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the process is starting: it waits for its database", http.StatusServiceUnavailable)
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text)) // who asked and is gone needs no answer
}
