package ingress

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// through starts the proxy in front of a backend, under the host app.localhost.
func through(t *testing.T, backendHandler http.HandlerFunc) *httptest.Server {
	t.Helper()
	app := httptest.NewServer(backendHandler)
	t.Cleanup(app.Close)
	p := newProxy()
	p.table.Store(&table{hosts: map[string][]route{
		"app.localhost":    {{backend: &backend{name: "ns/app:80", addresses: []string{app.Listener.Addr().String()}}}},
		"empty.localhost":  {{backend: &backend{name: "ns/empty:80"}}},
		"dead.localhost":   {{backend: &backend{name: "ns/dead:80", addresses: []string{"127.0.0.1:1"}}}},
		"gone.localhost":   {{backend: &backend{name: "ns/gone:80", missing: "there is no Service ns/gone"}}},
		"narrow.localhost": {{path: "/x", backend: &backend{name: "ns/app:80"}}},
	}})
	front := httptest.NewServer(p)
	t.Cleanup(front.Close)
	return front
}

func dial(t *testing.T, front *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func TestTheBackendReadsWhileTheClientStillSends(t *testing.T) {
	first := make(chan string)
	front := through(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 5)
		_, _ = io.ReadFull(r.Body, b)
		first <- string(b)
		rest, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d", len(rest))
	})
	c := dial(t, front)
	fmt.Fprint(c, "POST /u HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 10\r\n\r\nfirst")
	select {
	case got := <-first:
		if got != "first" {
			t.Fatal(got)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the backend saw nothing before the client had sent all")
	}
	fmt.Fprint(c, "later")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(r.Body); string(b) != "5" {
		t.Errorf("%s", b)
	}
}

func TestTheAnswerComesWhileTheClientStillSends(t *testing.T) {
	front := through(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		scan := bufio.NewScanner(r.Body)
		for scan.Scan() {
			fmt.Fprintf(w, "echo %s\n", scan.Text())
			_ = http.NewResponseController(w).Flush()
		}
	})
	c := dial(t, front)
	fmt.Fprint(c, "POST /u HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
	br := bufio.NewReader(c)
	r, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := bufio.NewReader(r.Body)
	if line, _ := body.ReadString('\n'); line != "echo one\n" {
		t.Fatalf("%q", line)
	}
	fmt.Fprint(c, "4\r\ntwo\n\r\n0\r\n\r\n")
	if line, _ := body.ReadString('\n'); line != "echo two\n" {
		t.Fatalf("%q", line)
	}
}

func TestEventsArriveOneByOne(t *testing.T) {
	next := make(chan struct{})
	front := through(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "event %d\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	req, _ := http.NewRequest("GET", front.URL, nil)
	req.Host = "app.localhost"
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body := bufio.NewReader(r.Body)
	for i := range 3 {
		if line, err := body.ReadString('\n'); err != nil || line != fmt.Sprintf("event %d\n", i) {
			t.Fatal(line, err)
		}
		next <- struct{}{} // the backend goes on only when its last event was seen
	}
}

func TestWebSocketsPass(t *testing.T) {
	front := through(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, m, err := c.ReadMessage()
			if err != nil {
				return
			}
			_ = c.WriteMessage(kind, append([]byte("echo "), m...))
		}
	})
	address := front.Listener.Addr().String()
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return net.Dial("tcp", address) }}
	c, _, err := d.Dial("ws://app.localhost/ws", http.Header{"Origin": {"http://app.localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, m := range []string{"a", strings.Repeat("b", 1<<20)} {
		if err := c.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.ReadMessage(); err != nil || string(got) != "echo "+m {
			t.Fatal(len(got), err)
		}
	}
}

func TestTheClientsClaimsAboutItselfAreDropped(t *testing.T) {
	front := through(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Seen-Host", r.Host)
		r.Header.Set("Seen-Query", r.URL.RawQuery)
		_ = json.NewEncoder(w).Encode(r.Header)
	})
	req, _ := http.NewRequest("GET", front.URL+"/?a=1;b=%zz", nil)
	req.Host = "app.localhost:8000"
	for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-User", "X-Forwarded-Prefix", "Forwarded", "X-Real-IP"} {
		req.Header.Set(h, "evil")
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var got http.Header
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "app.localhost:8000", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "8000",
		"X-Forwarded-User": "", "X-Forwarded-Prefix": "", "Forwarded": "", "X-Real-Ip": "127.0.0.1",
		"Seen-Host": "app.localhost:8000", "Seen-Query": "a=1;b=%zz",
	} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
	}
}

func TestFailuresAreOneSentence(t *testing.T) {
	front := through(t, func(w http.ResponseWriter, r *http.Request) {})
	for _, c := range []struct {
		host, sentence string
		code           int
	}{
		{"nobody.localhost", `No Ingress of this cluster has the host "nobody.localhost".`, 404},
		{"narrow.localhost", `No Ingress of this cluster has the path "/" on the host "narrow.localhost".`, 404},
		{"empty.localhost", "The Service ns/empty:80 has no ready endpoint yet.", 503},
		{"gone.localhost", "Nothing can answer here: there is no Service ns/gone.", 503},
		{"dead.localhost", "The Service ns/dead:80 did not answer: dial tcp 127.0.0.1:1: connect: connection refused.", 502},
	} {
		req, _ := http.NewRequest("GET", front.URL+"/", nil)
		req.Host = c.host
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != c.code || strings.TrimSpace(string(b)) != c.sentence || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %s", c.host, r.StatusCode, b)
		}
	}
}
