package main

import (
	"encoding/json"
	"fmt"
	"os"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	agentgateway "github.com/agentgateway/agentgateway/api"
)

// The feed that istiod has for agentgateway, with PILOT_ENABLE_AGENTGATEWAY.
const agentgatewayResource = "type.googleapis.com/agentgateway.dev.resource.Resource"

// Writes the routes of one Gateway, by the keys that istiod gives them: one for each match of each rule. Which Gateway's they
// are follows from the node's label and namespace, and the namespace has to be the token's: istio-system, as ztunnel's.
func routes(address, gateway, file string) error {
	stream, closed, err := open(address)
	if err != nil {
		return err
	}
	defer closed()
	metadata, err := structpb.NewStruct(map[string]any{
		"NAMESPACE": systemNamespace,
		"LABELS":    map[string]any{"gateway.networking.k8s.io/gateway-name": gateway},
	})
	if err != nil {
		return err
	}
	node := &core.Node{
		Id:       "agentgateway~1.1.1.1~dump." + systemNamespace + "~" + systemNamespace + ".svc.cluster.local",
		Metadata: metadata,
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: agentgatewayResource}); err != nil {
		return err
	}
	response, err := stream.Recv()
	if err != nil {
		return err
	}
	all := map[string]json.RawMessage{}
	for _, resource := range response.Resources {
		message := &agentgateway.Resource{}
		if err := resource.Resource.UnmarshalTo(message); err != nil {
			return fmt.Errorf("%s: %w", resource.Name, err)
		}
		if route := message.GetRoute(); route != nil {
			if all[route.Key], err = protojson.Marshal(route); err != nil {
				return err
			}
		}
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
