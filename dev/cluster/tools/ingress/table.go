// Package ingress is the cluster's Ingress controller: it routes by host and
// path to the ready endpoints of Services and streams bodies both ways.
package ingress

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/utils/ptr"
)

// ClassName is the class of the Ingresses that this controller serves.
const ClassName = "local"

// A table is what the proxy needs to know, built anew after each change.
type table struct {
	hosts    map[string][]route // "" holds the rules without a host
	fallback *backend           // a default backend, of the oldest Ingress that has one
}

type route struct {
	path    string // without a trailing slash, but for Exact
	exact   bool
	backend *backend
}

type backend struct {
	name      string // for people: namespace/service:port
	missing   string // why there can be no address: no such Service or port
	addresses []string
}

// build makes the table. The oldest Ingress wins where two claim one path.
func build(ingresses []*netv1.Ingress, services []*corev1.Service, slices []*discoveryv1.EndpointSlice) *table {
	byName := map[string]*corev1.Service{}
	for _, s := range services {
		byName[s.Namespace+"/"+s.Name] = s
	}
	slicesOf := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range slices {
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		slicesOf[key] = append(slicesOf[key], s)
	}
	resolve := func(ns string, b *netv1.IngressBackend) *backend {
		if b.Service == nil {
			return &backend{name: ns, missing: "the Ingress names no Service"}
		}
		key := ns + "/" + b.Service.Name
		return resolvePort(key, b.Service.Port, byName[key], slicesOf[key])
	}
	t := &table{hosts: map[string][]route{}}
	for _, ing := range inOrder(ingresses) {
		if !ours(ing) {
			continue
		}
		if ing.Spec.DefaultBackend != nil && t.fallback == nil {
			t.fallback = resolve(ing.Namespace, ing.Spec.DefaultBackend)
		}
		for _, rule := range ing.Spec.Rules {
			host := strings.ToLower(rule.Host)
			if rule.HTTP == nil {
				continue
			}
			for i := range rule.HTTP.Paths {
				p := &rule.HTTP.Paths[i]
				r := route{path: p.Path, backend: resolve(ing.Namespace, &p.Backend)}
				r.exact = p.PathType != nil && *p.PathType == netv1.PathTypeExact
				if !r.exact {
					r.path = strings.TrimRight(r.path, "/")
				}
				t.hosts[host] = append(t.hosts[host], r)
			}
		}
	}
	for _, routes := range t.hosts {
		// stable: of equal ones the first is the oldest Ingress's
		sort.SliceStable(routes, func(i, j int) bool {
			if len(routes[i].path) != len(routes[j].path) {
				return len(routes[i].path) > len(routes[j].path)
			}
			return routes[i].exact && !routes[j].exact
		})
	}
	return t
}

func inOrder(ingresses []*netv1.Ingress) []*netv1.Ingress {
	out := append([]*netv1.Ingress(nil), ingresses...)
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			return a.CreationTimestamp.Before(&b.CreationTimestamp)
		}
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	return out
}

func ours(ing *netv1.Ingress) bool {
	return ing.DeletionTimestamp == nil && ptr.Deref(ing.Spec.IngressClassName, ClassName) == ClassName
}

func resolvePort(key string, want netv1.ServiceBackendPort, svc *corev1.Service, slices []*discoveryv1.EndpointSlice) *backend {
	label := want.Name
	if label == "" {
		label = strconv.Itoa(int(want.Number))
	}
	b := &backend{name: key + ":" + label}
	if svc == nil {
		b.missing = "there is no Service " + key
		return b
	}
	portName, found := "", false
	for _, p := range svc.Spec.Ports {
		if (want.Name != "" && p.Name == want.Name) || (want.Name == "" && p.Port == want.Number) {
			portName, found = p.Name, true
			break
		}
	}
	if !found {
		b.missing = fmt.Sprintf("the Service %s has no port %s", key, label)
		return b
	}
	for _, slice := range slices {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue // this cluster is IPv4 only
		}
		for _, port := range slice.Ports {
			if ptr.Deref(port.Name, "") != portName || port.Port == nil {
				continue
			}
			for _, e := range slice.Endpoints {
				if !ptr.Deref(e.Conditions.Ready, true) || len(e.Addresses) == 0 {
					continue
				}
				b.addresses = append(b.addresses, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*port.Port))))
			}
		}
	}
	sort.Strings(b.addresses)
	return b
}

// find returns the backend of a request, or nil and whether the host is known.
// The most specific host that has rules decides: exact, then `*.` for one
// label, then rules without a host. Within it the longest path wins.
func (t *table) find(host, path string) (b *backend, known bool) {
	host = strings.ToLower(host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	candidates := []string{host}
	if _, parent, ok := strings.Cut(host, "."); ok {
		candidates = append(candidates, "*."+parent)
	}
	for _, candidate := range append(candidates, "") {
		routes, ok := t.hosts[candidate]
		if !ok {
			continue
		}
		known = true
		for _, r := range routes {
			if r.matches(path) {
				return r.backend, true
			}
		}
		break
	}
	return t.fallback, known
}

// matches: a prefix ends where a segment ends, so /a covers /a and /a/b, not /ab.
func (r route) matches(path string) bool {
	if r.exact {
		return path == r.path
	}
	rest, ok := strings.CutPrefix(path, r.path)
	return ok && (rest == "" || rest[0] == '/')
}
