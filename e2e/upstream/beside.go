package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	gatewayLabel = "gateway.networking.k8s.io/gateway-name"
	// Where istiod-lite serves waypoints: istiod has the ports of its own.
	besidePort = "15022"
)

// istiod-lite beside istiod, for waypoints alone, and what a kubelet would give to the waypoints.
type beside struct {
	settings
	cluster *cluster
	runs    bool
	tokens  map[string]bool
}

// Starts istiod-lite, and writes for each waypoint what its Deployment says and, once it is a Pod, what proves who it is.
func (b *beside) provide(ctx context.Context, p *programs, wanted objects, root []byte) error {
	if !b.runs && p.istiodIsReady() {
		if err := b.start(p); err != nil {
			return err
		}
		b.runs = true
	}
	if root != nil {
		b.write("root-cert.pem", root)
	}
	made, err := b.cluster.client.AppsV1().Deployments("").List(ctx, v1.ListOptions{LabelSelector: gatewayLabel})
	if err != nil {
		return nil // Asked again.
	}
	for _, d := range made.Items {
		env, err := json.Marshal(d.Spec.Template.Spec.Containers[0].Env)
		if err == nil {
			b.write(d.Name+".env.json", env)
		}
	}
	for key, o := range wanted {
		if key.kind == "Pod" && o.GetLabels()[gatewayLabel] != "" {
			b.token(ctx, o)
		}
	}
	return nil
}

func (b *beside) start(p *programs) error {
	host, _, err := net.SplitHostPort(b.listen)
	if err != nil {
		return err
	}
	const name = "istiod-lite-beside"
	out, err := os.OpenFile(filepath.Join(filepath.Dir(b.state), "logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	// By its name this program knows what it is.
	cmd := exec.Command(b.program)
	cmd.Args = []string{"ambit", "istiod-lite", "--kubeconfig=" + p.keys.file("kubeconfig")}
	started, err := p.launchAs(name, cmd, []string{
		"POD_NAME=istiod-lite", "POD_NAMESPACE=" + systemNamespace, "STATE_DIR=" + filepath.Join(b.state, name),
		"WAYPOINTS_ONLY=true", "WAYPOINT_IMAGE=none",
		"LISTEN_ADDRESS=" + net.JoinHostPort(host, besidePort), "HEALTH_PORT=15031", "MONITORING_PORT=15034", "DEBUG_PORT=15030",
	}, out)
	if err == nil {
		p.running = append(p.running, started)
	}
	return err
}

// A token of the waypoint's own account, bound to its Pod.
func (b *beside) token(ctx context.Context, pod *unstructured.Unstructured) {
	now, err := b.cluster.client.CoreV1().Pods(pod.GetNamespace()).Get(ctx, pod.GetName(), v1.GetOptions{})
	if err != nil || b.tokens[string(now.UID)] {
		return
	}
	seconds := int64(tokenSeconds)
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		Audiences:         []string{"istio-ca"},
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.GetName(), UID: now.UID},
	}}
	account := b.cluster.client.CoreV1().ServiceAccounts(pod.GetNamespace())
	made, err := account.CreateToken(ctx, now.Spec.ServiceAccountName, request, v1.CreateOptions{})
	if err != nil {
		log.Printf("no token for %s: %v", pod.GetName(), err)
		return
	}
	if b.write(pod.GetName()+".token", []byte(made.Status.Token)) {
		if b.tokens == nil {
			b.tokens = map[string]bool{}
		}
		b.tokens[string(now.UID)] = true
	}
}

func (b *beside) write(name string, content []byte) bool {
	path := filepath.Join(b.waypoints, name)
	err := writeWhole(path, content)
	if err == nil {
		// Waypoints are pods of the machine, and read it there.
		err = os.Chmod(path, 0o644)
	}
	if err != nil {
		log.Print("cannot write for waypoints: ", err)
	}
	return err == nil
}
