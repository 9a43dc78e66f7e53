// Package addon holds what the cluster's small controllers share: a client, a
// context that ends with a signal and a bell that gathers bursts of events.
package addon

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Flags returns the add-on's flags with --kubeconfig among them.
func Flags(name string) (*flag.FlagSet, *string) {
	fs := flag.NewFlagSet(name, flag.ExitOnError)
	return fs, fs.String("kubeconfig", "", "kubeconfig file")
}

// Connect returns a client, its informers and a context that ends with a signal.
func Connect(kubeconfig string) (context.Context, context.CancelFunc, *kubernetes.Clientset, informers.SharedInformerFactory, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	return ctx, stop, client, informers.NewSharedInformerFactory(client, 0), nil
}

// Bell is rung by every event and gathers those that come close together.
type Bell struct{ dirty chan struct{} }

// NewBell returns a bell that the informers ring.
func NewBell(watched ...cache.SharedIndexInformer) (*Bell, error) {
	b := &Bell{dirty: make(chan struct{}, 1)}
	h := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { b.Ring() },
		UpdateFunc: func(_, _ any) { b.Ring() },
		DeleteFunc: func(any) { b.Ring() },
	}
	for _, i := range watched {
		if _, err := i.AddEventHandler(h); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Ring asks for another round.
func (b *Bell) Ring() {
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

// Rounds calls f after each burst of events until ctx ends. A round that
// returns an error is repeated a second later.
func (b *Bell) Rounds(ctx context.Context, gather time.Duration, f func() error) int {
	for {
		select {
		case <-ctx.Done():
			return 0
		case <-b.dirty:
		}
		time.Sleep(gather)
		if err := f(); err != nil && ctx.Err() == nil {
			log.Print(err)
			time.AfterFunc(time.Second, b.Ring)
		}
	}
}

// Fail logs why an add-on cannot run and returns its exit code.
func Fail(err any) int {
	log.SetOutput(os.Stderr)
	log.Print(err)
	return 1
}
