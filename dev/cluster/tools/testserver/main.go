// Command testserver is what the tests of this cluster run in pods: a small
// HTTP server and client. It is never part of a deployment.
//
//	testserver serve            listens on :8080
//	testserver get URL          prints the answer's body; exit code 1 when there is none within 3 s
//	testserver lookup NAME      prints the addresses of a name
//	testserver dial HOST:PORT   exit code 1 when it does not connect within 3 s
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 3 * time.Second

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: testserver serve | get URL | lookup NAME | dial HOST:PORT")
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve()
	case "get":
		err = get(os.Args[2])
	case "lookup":
		err = lookup(os.Args[2])
	case "dial":
		var c net.Conn
		if c, err = net.DialTimeout("tcp", os.Args[2], patience); err == nil {
			c.Close()
		}
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func get(url string) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(os.Stdout, r.Body)
	return err
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	for _, a := range addresses {
		fmt.Println(a)
	}
	return err
}

func serve() error {
	name := os.Getenv("NAME")
	upgrade := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "path": r.URL.Path, "host": r.Host, "headers": r.Header})
	})
	http.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Fprintf(w, "%d %x\n", n, h.Sum(nil))
	})
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		path := "/data/" + r.URL.Query().Get("name")
		if r.Method == http.MethodPut {
			body, _ := io.ReadAll(r.Body)
			if err := os.WriteFile(path, body, 0o600); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
			return
		}
		http.ServeFile(w, r, path)
	})
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrade.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, message, err := c.ReadMessage()
			if err != nil {
				return
			}
			if err := c.WriteMessage(kind, append([]byte(name+": "), message...)); err != nil {
				return
			}
		}
	})
	log.Print("listening on :8080")
	return http.ListenAndServe(":8080", nil)
}
