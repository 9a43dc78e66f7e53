package ingress

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// A proxy serves the requests by the table that is current when they come.
type proxy struct {
	table   atomic.Pointer[table]
	turn    atomic.Uint64
	reverse *httputil.ReverseProxy
}

type targetKey struct{}

type target struct {
	backend *backend
	address string
}

func newProxy() *proxy {
	p := &proxy{}
	p.table.Store(&table{})
	p.reverse = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		FlushInterval: -1, // each chunk goes on at once: server-sent events, logs, progress
		ErrorHandler:  fail,
		ErrorLog:      log.Default(),
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConns:        512,
			MaxIdleConnsPerHost: 64,
			// Node and uvicorn close idle connections after 5 s. One that is used again in that
			// moment fails, and a POST cannot be sent twice: so let go of it first.
			IdleConnTimeout:       4 * time.Second,
			ExpectContinueTimeout: time.Second,
			DisableCompression:    true, // bodies pass as they are
			WriteBufferSize:       64 << 10,
			ReadBufferSize:        64 << 10,
		},
	}
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, known := p.table.Load().find(r.Host, r.URL.Path)
	switch {
	case b == nil && !known:
		say(w, http.StatusNotFound, fmt.Sprintf("No Ingress of this cluster has the host %q.", r.Host))
		return
	case b == nil:
		say(w, http.StatusNotFound, fmt.Sprintf("No Ingress of this cluster has the path %q on the host %q.", r.URL.Path, r.Host))
		return
	case b.missing != "":
		say(w, http.StatusServiceUnavailable, fmt.Sprintf("Nothing can answer here: %s.", b.missing))
		return
	case len(b.addresses) == 0:
		say(w, http.StatusServiceUnavailable, fmt.Sprintf("The Service %s has no ready endpoint yet.", b.name))
		return
	}
	// Without this the server reads the rest of an upload before it sends the answer's first byte.
	_ = http.NewResponseController(w).EnableFullDuplex()
	address := b.addresses[int(p.turn.Add(1)%uint64(len(b.addresses)))]
	ctx := context.WithValue(r.Context(), targetKey{}, target{b, address})
	p.reverse.ServeHTTP(w, r.WithContext(ctx))
}

func rewrite(pr *httputil.ProxyRequest) {
	t := pr.In.Context().Value(targetKey{}).(target)
	pr.SetURL(&url.URL{Scheme: "http", Host: t.address})
	pr.Out.Host = pr.In.Host
	// The client's own claims about itself are dropped, all of them.
	for name := range pr.Out.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "X-Real-Ip" {
			pr.Out.Header.Del(name)
		}
	}
	pr.SetXForwarded()
	if ip, _, err := net.SplitHostPort(pr.In.RemoteAddr); err == nil {
		pr.Out.Header.Set("X-Real-Ip", ip)
	}
	if _, port, err := net.SplitHostPort(pr.In.Host); err == nil {
		pr.Out.Header.Set("X-Forwarded-Port", port)
	} else {
		pr.Out.Header.Set("X-Forwarded-Port", "80")
	}
	// ReverseProxy removes what net/url cannot parse from the query; backends want it as it came.
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the client went away
	}
	t, _ := r.Context().Value(targetKey{}).(target)
	log.Printf("%s %s%s: %v", r.Method, r.Host, r.URL.Path, err)
	say(w, http.StatusBadGateway, fmt.Sprintf("The Service %s did not answer: %v.", t.backend.name, err))
}

func say(w http.ResponseWriter, code int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	fmt.Fprintln(w, sentence)
}

// serve answers on each listener until ctx ends; then open requests get a moment to end.
func (p *proxy) serve(ctx context.Context, listeners []net.Listener) error {
	server := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: time.Minute, // of the header only: bodies may take as long as they like
		IdleTimeout:       3 * time.Minute,
		ErrorLog:          log.Default(),
	}
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- server.Serve(l) }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_ = server.Shutdown(grace)
	return nil
}
