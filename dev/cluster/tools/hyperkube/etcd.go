package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdMain runs a single-member etcd in this process until a signal comes.
func etcdMain() int {
	fs := flag.NewFlagSet("etcd", flag.ExitOnError)
	dir := fs.String("data-dir", "", "folder for the store")
	client := fs.String("listen-client-url", "http://127.0.0.1:2379", "client URL")
	peer := fs.String("listen-peer-url", "http://127.0.0.1:2380", "peer URL")
	noFsync := fs.Bool("unsafe-no-fsync", false, "skip fsync (a power cut may then lose the store)")
	quota := fs.Int64("quota-backend-bytes", 2<<30, "store size limit in bytes")
	retention := fs.String("auto-compaction-retention", "10m", "history kept")
	level := fs.String("log-level", "warn", "log level")
	_ = fs.Parse(os.Args[1:])
	fail := func(code int, err any) int {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return code
	}
	if *dir == "" {
		return fail(2, "--data-dir is required")
	}
	cfg := embed.NewConfig()
	cfg.Name = "default"
	cfg.Dir = *dir
	cfg.LogLevel = *level
	cfg.UnsafeNoFsync = *noFsync
	cfg.QuotaBackendBytes = *quota
	// Left at zero by NewConfig's caller, every request would be logged as slow.
	cfg.WarningUnaryRequestDuration = time.Second
	cfg.AutoCompactionMode = "periodic"
	cfg.AutoCompactionRetention = *retention
	cu, err := url.Parse(*client)
	if err != nil {
		return fail(2, err)
	}
	pu, err := url.Parse(*peer)
	if err != nil {
		return fail(2, err)
	}
	cfg.ListenClientUrls = []url.URL{*cu}
	cfg.AdvertiseClientUrls = []url.URL{*cu}
	cfg.ListenPeerUrls = []url.URL{*pu}
	cfg.AdvertisePeerUrls = []url.URL{*pu}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fail(1, err)
	}
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-sig:
		e.Close()
		return 0
	case err := <-e.Err():
		return fail(1, err)
	}
}
