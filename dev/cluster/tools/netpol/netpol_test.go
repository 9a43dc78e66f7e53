package netpol

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(name, ip string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status:     corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning},
	}
}

func TestASelectedPodIsOpenToTheNamedPeerAndPortOnly(t *testing.T) {
	port := intstr.FromString("http")
	s := state{
		pods: []*corev1.Pod{pod("web", "10.0.0.1", map[string]string{"app": "web"}), pod("client", "10.0.0.2", map[string]string{"app": "client"})},
		policies: []*netv1.NetworkPolicy{{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"},
			Spec: netv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				PolicyTypes: []netv1.PolicyType{netv1.PolicyTypeIngress},
				Ingress: []netv1.NetworkPolicyIngressRule{{
					From:  []netv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "client"}}}},
					Ports: []netv1.NetworkPolicyPort{{Port: &port}},
				}},
			},
		}},
	}
	got := s.render()
	for _, want := range []string{
		"chain in_10_0_0_1 {\n    ip saddr { 10.0.0.2 } tcp dport 8080 return\n    counter drop",
		"ip daddr vmap { 10.0.0.1 : jump in_10_0_0_1 }",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "eg_") || strings.Contains(got, "in_10_0_0_2") {
		t.Error(got)
	}
}

func TestAnAddressUsedAgainBelongsToTheNewerPod(t *testing.T) {
	old, young := pod("old", "10.0.0.1", nil), pod("young", "10.0.0.1", nil)
	young.CreationTimestamp = metav1.NewTime(time.Unix(100, 0))
	if got := byAddress([]*corev1.Pod{old, young}); len(got) != 1 || got[0].Name != "young" {
		t.Error(got)
	}
}
