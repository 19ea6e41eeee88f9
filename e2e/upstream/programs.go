package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	etcdClients = "http://127.0.0.1:2379"
	etcdPeers   = "http://127.0.0.1:2380"
	// Where istiod serves proxies without TLS, and its own pages.
	istiodPlain = "127.0.0.1:15010"
	istiodPages = "127.0.0.1:8080"
	// How long a program may take to be ready: Kubernetes fills an empty etcd first, on a machine that is busy.
	patience = 90 * time.Second
)

// What runs. All of it ends with this process.
type programs struct {
	settings
	keys keys
	// Directory of the programs, and of the CRDs beside them.
	files   string
	running []*program
	istiod  *program
}

type program struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
}

func newPrograms(s settings) (*programs, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k, err := newKeys(filepath.Join(s.state, "kubernetes"))
	return &programs{settings: s, keys: k, files: filepath.Dir(own)}, err
}

func (p *programs) startKubernetes(ctx context.Context) error {
	etcd := "etcd"
	if beside := filepath.Join(p.files, "etcd"); exists(beside) {
		etcd = beside
	}
	if _, err := p.start(etcd, nil,
		"--data-dir="+filepath.Join(p.state, "etcd"),
		"--listen-client-urls="+etcdClients, "--advertise-client-urls="+etcdClients,
		"--listen-peer-urls="+etcdPeers, "--initial-advertise-peer-urls="+etcdPeers, "--initial-cluster=default="+etcdPeers,
		// What is lost with the machine need not be on its disk.
		"--unsafe-no-fsync", "--logger=zap", "--log-level=warn"); err != nil {
		return err
	}
	if err := until(ctx, "etcd is healthy", func() error { return answers(etcdClients + "/health") }); err != nil {
		return err
	}
	file := p.keys.file
	host, _, err := net.SplitHostPort(p.listen)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDRESS: %w", err)
	}
	if _, err := p.start(filepath.Join(p.files, "kube-apiserver"), nil,
		"--etcd-servers="+etcdClients,
		"--bind-address=127.0.0.1", "--secure-port=6443", "--advertise-address="+host, "--endpoint-reconciler-type=none",
		"--tls-cert-file="+file("server.crt"), "--tls-private-key-file="+file("server.key"), "--client-ca-file="+file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+file("accounts.crt"), "--service-account-signing-key-file="+file("accounts.key"),
		// The first address is the API server's own; the machine gives out those of 10.96.0.0/16.
		"--service-cluster-ip-range=10.64.0.0/10,fd00:10:96::/112",
		"--authorization-mode=AlwaysAllow",
		// Would mount a token into each pod, which has no kubelet to do so.
		"--disable-admission-plugins=ServiceAccount"); err != nil {
		return err
	}
	return nil
}

// Starts istiod if it does not run. An error if anything else has ended.
func (p *programs) keepIstiod() error {
	if err := p.allRun(); err != nil {
		return err
	}
	if p.istiod != nil {
		select {
		case <-p.istiod.ended:
			log.Printf("istiod ended (%v); it is started again", p.istiod.cmd.ProcessState)
		default:
			return nil
		}
	}
	// Another directory, so that no mesh configuration or certificate of the machine around is taken for its own.
	istiod, err := p.launch(filepath.Join(p.files, "istiod"), []string{
		"POD_NAME=istiod", "POD_NAMESPACE=" + systemNamespace, "REVISION=default", "CLUSTER_ID=Kubernetes",
		"PILOT_ENABLE_AMBIENT=true", "PILOT_CERT_PROVIDER=istiod",
		"CA_TRUSTED_NODE_ACCOUNTS=" + systemNamespace + "/" + ztunnelAccount,
		// A test may ask for the feed of agentgateway.
		"PILOT_ENABLE_AGENTGATEWAY=" + cmp.Or(os.Getenv("PILOT_ENABLE_AGENTGATEWAY"), "false"),
		"INJECTION_WEBHOOK_CONFIG_NAME=", "VALIDATION_WEBHOOK_CONFIG_NAME=",
	},
		"discovery", "--kubeconfig="+p.keys.file("kubeconfig"),
		"--secureGRPCAddr="+p.listen, "--grpcAddr="+istiodPlain, "--httpAddr="+istiodPages,
		"--httpsAddr=", "--monitoringAddr=127.0.0.1:15014", "--ctrlz_port=0", "--shutdownDuration=1s", "--log_as_json=false")
	p.istiod = istiod
	return err
}

// An error if etcd or kube-apiserver has ended: what is wrong then is in its log.
func (p *programs) allRun() error {
	for _, program := range p.running {
		select {
		case <-program.ended:
			return fmt.Errorf("%s ended: %v; see its log", program.name, program.cmd.ProcessState)
		default:
		}
	}
	return nil
}

func (p *programs) istiodIsReady() bool { return answers("http://"+istiodPages+"/ready") == nil }

func (p *programs) start(path string, env []string, args ...string) (*program, error) {
	started, err := p.launch(path, env, args...)
	if err == nil {
		p.running = append(p.running, started)
	}
	return started, err
}

func (p *programs) launch(path string, env []string, args ...string) (*program, error) {
	name := filepath.Base(path)
	out, err := os.OpenFile(filepath.Join(filepath.Dir(p.state), "logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	return p.launchAs(name, exec.Command(path, args...), env, out)
}

func (p *programs) launchAs(name string, cmd *exec.Cmd, env []string, out *os.File) (*program, error) {
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.keys.dir, out, out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.keys.dir}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s (see e2e/upstream/README.md): %w", name, err)
	}
	started := &program{name, cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // How it ended is in its state.
		close(started.ended)
	}()
	return started, nil
}

// Ends all, the last first.
func (p *programs) end() {
	all := p.running
	if p.istiod != nil {
		all = append(all, p.istiod)
	}
	for i := len(all) - 1; i >= 0; i-- {
		_ = all[i].cmd.Process.Signal(syscall.SIGTERM) // It may have ended.
		select {
		case <-all[i].ended:
		case <-time.After(2 * time.Second):
			_ = all[i].cmd.Process.Kill()
			<-all[i].ended
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func answers(url string) error {
	client := http.Client{Timeout: time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		return fmt.Errorf("%s: %s", response.Status, said)
	}
	return nil
}

func until(ctx context.Context, what string, look func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v in vain", patience))
	defer cancel()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s: %w", context.Cause(ctx), what, err)
		case <-time.After(pause):
		}
	}
}
