package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"
)

// What a ztunnel asks for.
var types = []struct {
	url, name string
	message   func() proto.Message
}{
	{"type.googleapis.com/istio.workload.Address", "address", func() proto.Message { return &workloadapi.Address{} }},
	{"type.googleapis.com/istio.security.Authorization", "authorization", func() proto.Message { return &security.Authorization{} }},
}

// Opens a stream to a control plane, and says how it is closed. With https, the root certificate and the token are files named
// by XDS_ROOT_CA and AUTH_TOKEN, as ztunnel has them.
func open(address string) (discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, func(), error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	transport := insecure.NewCredentials()
	if target.Scheme == "https" {
		pem, err := os.ReadFile(os.Getenv("XDS_ROOT_CA"))
		if err != nil {
			cancel()
			return nil, nil, err
		}
		token, err := os.ReadFile(os.Getenv("AUTH_TOKEN"))
		if err != nil {
			cancel()
			return nil, nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport = credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "istiod.istio-system.svc"})
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token)), "clusterid", "Kubernetes")
	}
	connection, err := grpc.NewClient(target.Host, grpc.WithTransportCredentials(transport))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	closed := func() {
		cancel()
		_ = connection.Close() // Nothing is sent any more.
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		closed()
		return nil, nil, err
	}
	return stream, closed, nil
}

// Writes each resource as it came, and all as JSON: to compare control planes, and to have examples.
func dump(address, dir string) error {
	stream, closed, err := open(address)
	if err != nil {
		return err
	}
	defer closed()
	for _, t := range types {
		node := &core.Node{Id: "ztunnel~1.1.1.1~dump.istio-system~istio-system.svc.cluster.local"}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: t.url}); err != nil {
			return err
		}
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		all := map[string]json.RawMessage{}
		if err := os.MkdirAll(filepath.Join(dir, t.name), 0o755); err != nil {
			return err
		}
		for _, resource := range response.Resources {
			message := t.message()
			if err := resource.Resource.UnmarshalTo(message); err != nil {
				return fmt.Errorf("%s: %w", resource.Name, err)
			}
			// What only Ambit's proxies understand cannot be written as JSON here.
			if address, ok := message.(*workloadapi.Address); ok && address.GetService() != nil {
				address.GetService().Extensions = nil
			}
			if all[resource.Name], err = protojson.Marshal(message); err != nil {
				return err
			}
			file := filepath.Join(dir, t.name, strings.ReplaceAll(resource.Name, "/", "_")+".pb")
			if err := os.WriteFile(file, resource.Resource.Value, 0o644); err != nil {
				return err
			}
		}
		// Sorted by name.
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, t.name+".json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}
