package main

import (
	"fmt"
	"net/http"
	"net/http/pprof"

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
		r.Handle("/metrics", promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{Registry: p.metrics}))
	}
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	r.PathPrefix("/debug/pprof/").HandlerFunc(pprof.Index)

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
