package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"path/filepath"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	v1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	ztunnelAccount = "ztunnel"
	// As ztunnel's chart asks for; a new one is written long before.
	tokenSeconds = 43200
	renewal      = time.Hour
)

// What a kubelet would mount into ztunnels.
type ztunnels struct {
	settings
	cluster *cluster
	// When and for which pod each node's token was made.
	tokens map[string]given
	root   []byte
}

type given struct {
	pod string
	at  time.Time
}

// Writes what has changed: tokens and the root certificate. Whether all of it is there.
func (z *ztunnels) provide(ctx context.Context, wanted objects) bool {
	complete := true
	if z.tokens == nil {
		z.tokens = map[string]given{}
		account := &core.ServiceAccount{ObjectMeta: v1.ObjectMeta{Name: ztunnelAccount, Namespace: systemNamespace}}
		_, err := z.cluster.client.CoreV1().ServiceAccounts(systemNamespace).Create(ctx, account, v1.CreateOptions{})
		if err != nil && !errors.IsAlreadyExists(err) {
			log.Print("cannot make the service account of ztunnel: ", err)
			z.tokens = nil
			return false
		}
	}
	for key, o := range wanted {
		if key.kind == "Pod" && key.namespace == systemNamespace && o.GetLabels()["app"] == ztunnelAccount {
			complete = z.token(ctx, o) && complete
		}
	}
	return z.rootCertificate(ctx) && complete
}

func (z *ztunnels) token(ctx context.Context, pod *unstructured.Unstructured) bool {
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	now, err := z.cluster.client.CoreV1().Pods(systemNamespace).Get(ctx, pod.GetName(), v1.GetOptions{})
	if err != nil {
		return false
	}
	if last := z.tokens[node]; last.pod == string(now.UID) && time.Since(last.at) < renewal {
		return true
	}
	seconds := int64(tokenSeconds)
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		Audiences:         []string{"istio-ca"},
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.GetName(), UID: now.UID},
	}}
	made, err := z.cluster.client.CoreV1().ServiceAccounts(systemNamespace).CreateToken(ctx, ztunnelAccount, request, v1.CreateOptions{})
	if err == nil {
		err = writeWhole(filepath.Join(z.nodes, node, "token"), []byte(made.Status.Token))
	}
	if err != nil {
		log.Printf("no token for %s: %v", pod.GetName(), err)
		return false
	}
	z.tokens[node] = given{string(now.UID), time.Now()}
	return true
}

// Where istiod publishes it, until it has.
func (z *ztunnels) rootCertificate(ctx context.Context) bool {
	published, err := z.cluster.client.CoreV1().ConfigMaps(systemNamespace).Get(ctx, "istio-ca-root-cert", v1.GetOptions{})
	if err != nil {
		return z.root != nil
	}
	if root := []byte(published.Data["root-cert.pem"]); !bytes.Equal(root, z.root) {
		if err := writeWhole(filepath.Join(z.state, "root-cert.pem"), root); err != nil {
			log.Print("cannot write the root certificate: ", err)
			return false
		}
		z.root = root
	}
	return z.root != nil
}

// Others see the old content or the new.
func writeWhole(path string, content []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
