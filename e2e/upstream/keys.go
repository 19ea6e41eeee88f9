package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Where the API server listens: in the machine's own network.
const apiServer = "127.0.0.1:6443"

// Files of the API server's certificate authority, of its own and the administrator's certificate, and of the key that
// service account tokens are signed with.
type keys struct {
	dir string
}

func (k keys) file(name string) string { return filepath.Join(k.dir, name) }

// Makes them, unless an earlier run did.
func newKeys(dir string) (keys, error) {
	k := keys{dir}
	if _, err := os.Stat(k.file("kubeconfig")); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, err
	}
	ca := template("kubernetes")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caKey, err := k.issue("ca", ca, ca, nil)
	if err != nil {
		return k, err
	}
	server := template("kube-apiserver")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	if _, err := k.issue("server", server, ca, caKey); err != nil {
		return k, err
	}
	admin := template("admin")
	admin.Subject.Organization = []string{"system:masters"}
	admin.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := k.issue("admin", admin, ca, caKey); err != nil {
		return k, err
	}
	if _, err := k.issue("accounts", template("service accounts"), ca, caKey); err != nil {
		return k, err
	}
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: machine, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: admin, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: machine, context: {cluster: machine, user: admin}}]
current-context: machine
`, apiServer, k.file("ca.crt"), k.file("admin.crt"), k.file("admin.key"))
	return k, os.WriteFile(k.file("kubeconfig"), []byte(config), 0o600)
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// Writes a new key and its certificate; nobody's key signs itself.
func (k keys) issue(name string, what, by *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	certificate, err := x509.CreateCertificate(rand.Reader, what, by, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: certificate},
		name + ".key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(k.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	return key, nil
}
