package ingress

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func ingressOf(name string, age time.Duration, rules ...netv1.IngressRule) *netv1.Ingress {
	return &netv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age))},
		Spec:       netv1.IngressSpec{Rules: rules},
	}
}

func rule(host string, paths ...netv1.HTTPIngressPath) netv1.IngressRule {
	return netv1.IngressRule{Host: host, IngressRuleValue: netv1.IngressRuleValue{HTTP: &netv1.HTTPIngressRuleValue{Paths: paths}}}
}

func to(path string, kind netv1.PathType, service string) netv1.HTTPIngressPath {
	return netv1.HTTPIngressPath{Path: path, PathType: &kind, Backend: netv1.IngressBackend{
		Service: &netv1.IngressServiceBackend{Name: service, Port: netv1.ServiceBackendPort{Number: 80}},
	}}
}

func find(t *testing.T, tab *table, host, path string) string {
	t.Helper()
	b, known := tab.find(host, path)
	switch {
	case b != nil:
		return b.name
	case known:
		return "no path"
	default:
		return "no host"
	}
}

func TestRoutesByHostAndPath(t *testing.T) {
	tab := build([]*netv1.Ingress{ingressOf("a", 0,
		rule("hub.localhost",
			to("/", netv1.PathTypePrefix, "root"),
			to("/api", netv1.PathTypePrefix, "api"),
			to("/api/v2/", netv1.PathTypePrefix, "v2"),
			to("/api", netv1.PathTypeExact, "exact"),
			to("/impl", netv1.PathTypeImplementationSpecific, "impl")),
		rule("*.stacks.localhost", to("/", netv1.PathTypePrefix, "wild")),
		rule("one.stacks.localhost", to("/only", netv1.PathTypePrefix, "one")),
	)}, nil, nil)
	for _, c := range []struct{ host, path, want string }{
		{"hub.localhost", "/", "ns/root:80"},
		{"hub.localhost", "/apish", "ns/root:80"},
		{"hub.localhost", "/api", "ns/exact:80"},
		{"hub.localhost", "/api/", "ns/api:80"},
		{"hub.localhost", "/api/v2", "ns/v2:80"},
		{"hub.localhost", "/api/v2/x", "ns/v2:80"},
		{"hub.localhost", "/api/v22", "ns/api:80"},
		{"hub.localhost", "/impl/x", "ns/impl:80"},
		{"HUB.localhost:8000", "/", "ns/root:80"},
		{"hub.localhost.:8000", "/", "ns/root:80"},
		{"a.stacks.localhost", "/", "ns/wild:80"},
		{"a.b.stacks.localhost", "/", "no host"},
		{"stacks.localhost", "/", "no host"},
		{"one.stacks.localhost", "/only", "ns/one:80"},
		{"one.stacks.localhost", "/", "no path"},
		{"127.0.0.1:8000", "/", "no host"},
	} {
		if got := find(t, tab, c.host, c.path); got != c.want {
			t.Errorf("%s%s: %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

func TestTheOldestIngressKeepsAPath(t *testing.T) {
	young := ingressOf("a", 0, rule("x", to("/", netv1.PathTypePrefix, "young")))
	old := ingressOf("b", time.Hour, rule("x", to("/", netv1.PathTypePrefix, "old")))
	if got := find(t, build([]*netv1.Ingress{young, old}, nil, nil), "x", "/"); got != "ns/old:80" {
		t.Error(got)
	}
}

func TestOtherClassesAreLeftAlone(t *testing.T) {
	foreign := ingressOf("a", 0, rule("x", to("/", netv1.PathTypePrefix, "s")))
	foreign.Spec.IngressClassName = ptr.To("nginx")
	if got := find(t, build([]*netv1.Ingress{foreign}, nil, nil), "x", "/"); got != "no host" {
		t.Error(got)
	}
}

func TestRulesWithoutHostAndDefaultBackend(t *testing.T) {
	any := ingressOf("a", 0, rule("", to("/p", netv1.PathTypePrefix, "any")))
	any.Spec.DefaultBackend = &netv1.IngressBackend{Service: &netv1.IngressServiceBackend{Name: "rest", Port: netv1.ServiceBackendPort{Name: "http"}}}
	tab := build([]*netv1.Ingress{any}, nil, nil)
	if got := find(t, tab, "whatever", "/p/q"); got != "ns/any:80" {
		t.Error(got)
	}
	if got := find(t, tab, "whatever", "/q"); got != "ns/rest:http" {
		t.Error(got)
	}
}

func TestOnlyReadyEndpointsOfTheNamedPort(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "admin", Port: 81}},
	}}
	endpoint := func(ip string, ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "s-1", Namespace: "ns", Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(8080))}, {Name: ptr.To("admin"), Port: ptr.To(int32(9090))}},
		Endpoints:   []discoveryv1.Endpoint{endpoint("10.0.0.2", ptr.To(true)), endpoint("10.0.0.3", ptr.To(false)), endpoint("10.0.0.1", nil)},
	}
	b := resolvePort("ns/s", netv1.ServiceBackendPort{Number: 80}, service, []*discoveryv1.EndpointSlice{slice})
	if len(b.addresses) != 2 || b.addresses[0] != "10.0.0.1:8080" || b.addresses[1] != "10.0.0.2:8080" {
		t.Error(b.addresses)
	}
	b = resolvePort("ns/s", netv1.ServiceBackendPort{Name: "admin"}, service, []*discoveryv1.EndpointSlice{slice})
	if len(b.addresses) != 2 || b.addresses[0] != "10.0.0.1:9090" {
		t.Error(b.addresses)
	}
	if b = resolvePort("ns/s", netv1.ServiceBackendPort{Name: "none"}, service, nil); b.missing != "the Service ns/s has no port none" {
		t.Error(b.missing)
	}
	if b = resolvePort("ns/t", netv1.ServiceBackendPort{Number: 80}, nil, nil); b.missing != "there is no Service ns/t" {
		t.Error(b.missing)
	}
}
