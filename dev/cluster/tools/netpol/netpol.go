// Package netpol enforces NetworkPolicy on the one node of the cluster. It
// renders all policies into one nftables table and replaces that table in one
// transaction. It relies on net.bridge.bridge-nf-call-iptables=1, so that
// packets between two pods on the bridge pass the forward hook too.
//
// What comes from the node itself (probes, the ingress) is always let through.
// A pod's rules follow its address into the API within some tens of
// milliseconds; until then it is open, as with other implementations.
package netpol

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"cytomine-spawner.test/cluster/addon"
)

// Main is the program netpol.
func Main() int {
	fs, kubeconfig := addon.Flags("netpol")
	_ = fs.Parse(os.Args[1:])
	ctx, stop, _, f, err := addon.Connect(*kubeconfig)
	if err != nil {
		return addon.Fail(err)
	}
	defer stop()
	pods, nss, pols := f.Core().V1().Pods(), f.Core().V1().Namespaces(), f.Networking().V1().NetworkPolicies()
	bell, err := addon.NewBell(pods.Informer(), nss.Informer(), pols.Informer())
	if err != nil {
		return addon.Fail(err)
	}
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	last := ""
	return bell.Rounds(ctx, 30*time.Millisecond, func() error {
		var s state
		s.pods, _ = pods.Lister().List(labels.Everything())
		s.namespaces, _ = nss.Lister().List(labels.Everything())
		s.policies, _ = pols.Lister().List(labels.Everything())
		rules := s.render()
		if rules == last {
			return nil
		}
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		last = rules
		log.Printf("applied %d policies to %d pods", len(s.policies), len(s.pods))
		return nil
	})
}

type state struct {
	pods       []*corev1.Pod
	namespaces []*corev1.Namespace
	policies   []*netv1.NetworkPolicy
}

func live(p *corev1.Pod) bool {
	return p.Status.PodIP != "" && !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

func matches(sel *metav1.LabelSelector, l map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(sel)
	return err == nil && s.Matches(labels.Set(l))
}

func (s *state) render() string {
	s.pods = byAddress(s.pods)
	sort.Slice(s.policies, func(i, j int) bool {
		return s.policies[i].Namespace+"/"+s.policies[i].Name < s.policies[j].Namespace+"/"+s.policies[j].Name
	})
	var chains bytes.Buffer
	var in, eg []string
	for _, p := range s.pods {
		var inRules, egRules []string
		inIso, egIso := false, false
		for _, np := range s.policies {
			if np.Namespace != p.Namespace || !matches(&np.Spec.PodSelector, p.Labels) {
				continue
			}
			for _, t := range np.Spec.PolicyTypes { // defaulted by the API server
				switch t {
				case netv1.PolicyTypeIngress:
					inIso = true
					for _, r := range np.Spec.Ingress {
						inRules = append(inRules, s.rules("saddr", np.Namespace, r.From, r.Ports, p)...)
					}
				case netv1.PolicyTypeEgress:
					egIso = true
					for _, r := range np.Spec.Egress {
						egRules = append(egRules, s.rules("daddr", np.Namespace, r.To, r.Ports, nil)...)
					}
				}
			}
		}
		id := strings.NewReplacer(".", "_", ":", "_").Replace(p.Status.PodIP)
		if inIso {
			in = append(in, fmt.Sprintf("%s : jump in_%s", p.Status.PodIP, id))
			fmt.Fprintf(&chains, "  chain in_%s {\n%s    counter drop\n  }\n", id, indent(inRules))
		}
		if egIso {
			eg = append(eg, fmt.Sprintf("%s : jump eg_%s", p.Status.PodIP, id))
			fmt.Fprintf(&chains, "  chain eg_%s {\n%s    counter drop\n  }\n", id, indent(egRules))
		}
	}
	var b bytes.Buffer
	b.WriteString("add table inet netpol\ndelete table inet netpol\ntable inet netpol {\n")
	b.Write(chains.Bytes())
	for _, hook := range []string{"forward", "input"} {
		fmt.Fprintf(&b, "  chain %s {\n    type filter hook %s priority 5; policy accept;\n    ct state established,related accept\n", hook, hook)
		if len(eg) > 0 {
			fmt.Fprintf(&b, "    ip saddr vmap { %s }\n", strings.Join(eg, ", "))
		}
		if len(in) > 0 && hook == "forward" {
			fmt.Fprintf(&b, "    ip daddr vmap { %s }\n", strings.Join(in, ", "))
		}
		b.WriteString("  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// byAddress keeps the live pods, sorted. A pod that is being deleted may still
// name an address that a newer one has by now, and nft refuses a double key.
func byAddress(pods []*corev1.Pod) []*corev1.Pod {
	newest := map[string]*corev1.Pod{}
	for _, p := range pods {
		if !live(p) {
			continue
		}
		if q := newest[p.Status.PodIP]; q == nil || q.CreationTimestamp.Before(&p.CreationTimestamp) {
			newest[p.Status.PodIP] = p
		}
	}
	out := make([]*corev1.Pod, 0, len(newest))
	for _, p := range newest {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Status.PodIP < out[j].Status.PodIP })
	return out
}

func indent(rules []string) string {
	var b strings.Builder
	for _, r := range rules {
		b.WriteString("    " + strings.TrimSpace(r+" return") + "\n")
	}
	return b.String()
}

// rules renders one ingress or egress rule. target is the pod whose named
// ports count for ingress; for egress it is nil and each peer has its own.
func (s *state) rules(addr, ns string, peers []netv1.NetworkPolicyPeer, ports []netv1.NetworkPolicyPort, target *corev1.Pod) []string {
	var out []string
	emit := func(match string, dst []*corev1.Pod) {
		if len(ports) == 0 {
			out = append(out, match)
			return
		}
		for _, pt := range ports {
			proto := "tcp"
			if pt.Protocol != nil {
				proto = strings.ToLower(string(*pt.Protocol))
			}
			switch {
			case pt.Port == nil:
				out = append(out, match+" meta l4proto "+proto)
			case pt.Port.Type == intstr.Int && pt.EndPort != nil:
				out = append(out, fmt.Sprintf("%s %s dport %d-%d", match, proto, pt.Port.IntVal, *pt.EndPort))
			case pt.Port.Type == intstr.Int:
				out = append(out, fmt.Sprintf("%s %s dport %d", match, proto, pt.Port.IntVal))
			case target != nil:
				if n := named(target, pt.Port.StrVal, proto); n != 0 {
					out = append(out, fmt.Sprintf("%s %s dport %d", match, proto, n))
				}
			default:
				for _, d := range dst {
					if n := named(d, pt.Port.StrVal, proto); n != 0 {
						out = append(out, fmt.Sprintf("ip %s %s %s dport %d", addr, d.Status.PodIP, proto, n))
					}
				}
			}
		}
	}
	if len(peers) == 0 {
		emit("", s.pods)
		return out
	}
	for _, peer := range peers {
		if b := peer.IPBlock; b != nil {
			m := fmt.Sprintf("ip %s %s", addr, b.CIDR)
			if strings.Contains(b.CIDR, ":") {
				continue // this cluster is IPv4 only
			}
			if len(b.Except) > 0 {
				m += fmt.Sprintf(" ip %s != { %s }", addr, strings.Join(b.Except, ", "))
			}
			emit(m, nil)
			continue
		}
		var ips []string
		var dst []*corev1.Pod
		for _, q := range s.pods {
			if !s.nsMatches(peer.NamespaceSelector, ns, q.Namespace) {
				continue
			}
			if peer.PodSelector == nil || matches(peer.PodSelector, q.Labels) {
				ips = append(ips, q.Status.PodIP)
				dst = append(dst, q)
			}
		}
		if len(ips) > 0 {
			emit(fmt.Sprintf("ip %s { %s }", addr, strings.Join(ips, ", ")), dst)
		}
	}
	return out
}

func (s *state) nsMatches(sel *metav1.LabelSelector, own, name string) bool {
	if sel == nil {
		return name == own
	}
	for _, n := range s.namespaces {
		if n.Name == name {
			return matches(sel, n.Labels)
		}
	}
	return false
}

func named(p *corev1.Pod, name, proto string) int32 {
	for _, c := range p.Spec.Containers {
		for _, q := range c.Ports {
			if q.Name == name && strings.EqualFold(string(q.Protocol), proto) {
				return q.ContainerPort
			}
		}
	}
	return 0
}
