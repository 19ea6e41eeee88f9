// Command upstream stands in istiod-lite's place: it has the same arguments and settings, and gives ztunnels their tables
// and certificates, but by upstream's istiod on a Kubernetes API server.
//
//	upstream FOLDER         keeps etcd, kube-apiserver and istiod running on the objects of a folder
//	upstream dump URL DIR   writes what a control plane sends to a ztunnel
//	upstream routes URL GATEWAY FILE   writes what istiod sends to an agentgateway of a Gateway
//
// Which question is answered where:
//
//	programs.go  what runs, with which arguments?
//	keys.go      who trusts whom between the API server and its clients?
//	objects.go   which objects are there, the folder's and what the machine adds to them?
//	apply.go     how do they get into the API server?
//	ztunnels.go  what does a ztunnel need beside them: its token, the root certificate?
//	acknowledged.go  and what does the machine wait for?
//	beside.go    and what if istiod-lite runs waypoints beside istiod?
//	dump.go      what is on the wire?
//	agentgateway.go  what do routes come to in istiod?
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// Between two looks at the folder.
const pause = 100 * time.Millisecond

func init() {
	// Programs end with the thread that started them.
	runtime.LockOSThread()
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "dump":
		err = dump(os.Args[2], os.Args[3])
	case len(os.Args) == 5 && os.Args[1] == "routes":
		err = routes(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 2:
		err = run(os.Args[1])
	default:
		err = fmt.Errorf("usage: upstream FOLDER, upstream dump URL DIR, or upstream routes URL GATEWAY FILE")
	}
	if err != nil {
		log.Fatal("upstream: ", err)
	}
}

// What the machine (`ambit up`) tells its control plane.
type settings struct {
	folder, overlay, state, listen string
	// The machine's directory of one node each.
	nodes string
	// Objects for the API server alone, and the program of istiod-lite, where that is to run waypoints beside istiod.
	waypoints, program string
}

func fromEnv(folder string) (settings, error) {
	s := settings{folder: folder, overlay: os.Getenv("OVERLAY"), state: os.Getenv("STATE_DIR"), listen: os.Getenv("LISTEN_ADDRESS"),
		waypoints: os.Getenv("AMBIT_TEST_WAYPOINTS_ONLY"), program: os.Getenv("AMBIT_TEST_PROGRAM")}
	if s.overlay == "" || s.state == "" || s.listen == "" {
		return s, fmt.Errorf("OVERLAY, STATE_DIR and LISTEN_ADDRESS must be set, as istiod-lite has them in `ambit up`")
	}
	s.nodes = filepath.Join(filepath.Dir(s.state), "nodes")
	return s, nil
}

func run(folder string) error {
	s, err := fromEnv(folder)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var ready atomic.Bool
	go serveReadiness(&ready)

	programs, err := newPrograms(s)
	if err != nil {
		return err
	}
	defer programs.end()
	if err := programs.startKubernetes(ctx); err != nil {
		return err
	}
	cluster, err := newCluster(programs.keys)
	if err != nil {
		return err
	}
	if err := cluster.prepare(ctx, programs); err != nil {
		return err
	}
	source := source{settings: s}
	ztunnels := ztunnels{settings: s, cluster: cluster}
	beside := beside{settings: s, cluster: cluster}
	var told []byte
	for ctx.Err() == nil {
		if err := programs.keepIstiod(); err != nil {
			return err
		}
		wanted := source.read()
		cluster.bring(ctx, wanted)
		if programs.istiodIsReady() {
			told = source.held.tell(told)
		}
		if s.waypoints != "" {
			if err := beside.provide(ctx, programs, wanted, ztunnels.root); err != nil {
				return err
			}
		}
		ready.Store(ztunnels.provide(ctx, wanted) && cluster.settled && programs.istiodIsReady())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func serveReadiness(ready *atomic.Bool) {
	http.HandleFunc("/healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	log.Fatal(http.ListenAndServe(":15021", nil))
}
