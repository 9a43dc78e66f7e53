package ingress

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"strings"
	"time"

	netv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"cytomine-spawner.test/cluster/addon"
)

// Main is the program ingress.
func Main() int {
	fs, kubeconfig := addon.Flags("ingress")
	listen := fs.String("listen", "127.0.0.1:8000", "addresses to listen on, with commas between them")
	_ = fs.Parse(os.Args[1:])
	listeners, err := open(strings.Split(*listen, ","))
	if err != nil {
		return addon.Fail(err)
	}
	ctx, stop, client, f, err := addon.Connect(*kubeconfig)
	if err != nil {
		return addon.Fail(err)
	}
	defer stop()
	ingresses, services, slices := f.Networking().V1().Ingresses(), f.Core().V1().Services(), f.Discovery().V1().EndpointSlices()
	bell, err := addon.NewBell(ingresses.Informer(), services.Informer(), slices.Informer())
	if err != nil {
		return addon.Fail(err)
	}
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	p := newProxy()
	update := func() error {
		ing, err := ingresses.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		svc, err := services.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		sl, err := slices.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		p.table.Store(build(ing, svc, sl))
		return report(ctx, client, ing)
	}
	if err := update(); err != nil {
		log.Print(err)
		bell.Ring()
	}
	served := make(chan error, 1)
	go func() {
		served <- p.serve(ctx, listeners)
		stop()
	}()
	code := bell.Rounds(ctx, 10*time.Millisecond, update)
	if err := <-served; err != nil {
		return addon.Fail(err)
	}
	return code
}

// open listens on all addresses. The first must work; a further one that the
// machine does not have ([::1] without IPv6) is left out.
func open(addresses []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for i, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil && i == 0 {
			return nil, err
		}
		if err != nil {
			log.Printf("not listening on %s: %v", a, err)
			continue
		}
		log.Printf("listening on %s", a)
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// report writes the address that an Ingress is reached at into its status.
func report(ctx context.Context, client kubernetes.Interface, ingresses []*netv1.Ingress) error {
	var errs []error
	for _, ing := range ingresses {
		have := ing.Status.LoadBalancer.Ingress
		if !ours(ing) || (len(have) == 1 && have[0].IP == "127.0.0.1") {
			continue
		}
		ing = ing.DeepCopy()
		ing.Status.LoadBalancer.Ingress = []netv1.IngressLoadBalancerIngress{{IP: "127.0.0.1"}}
		_, err := client.NetworkingV1().Ingresses(ing.Namespace).UpdateStatus(ctx, ing, metav1.UpdateOptions{})
		// changed or gone meanwhile: its own event brings the next round
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
