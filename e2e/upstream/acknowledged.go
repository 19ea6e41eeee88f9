package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What the machine waits for before a pod may speak: that the tables of all proxies hold it (ACKNOWLEDGED_FILE). istiod does not say
// who has acknowledged what, so it is said of all that the API server was given, and trials ask until it is so.
type acknowledged struct {
	Pods     map[string]heldPod     `json:"pods"`
	Services map[string]heldService `json:"services"`
	WaitsFor []string               `json:"waitsFor"`
}

type heldPod struct {
	ResourceVersion string `json:"resourceVersion"`
	Protocol        string `json:"protocol"`
	Ready           bool   `json:"ready"`
}

type heldService struct {
	ResourceVersion string   `json:"resourceVersion"`
	Addresses       []string `json:"addresses"`
}

// By the machine's own versions and names of lives, which the API server is not told.
func acknowledgedOf(over objects) acknowledged {
	held := acknowledged{map[string]heldPod{}, map[string]heldService{}, []string{}}
	for key, o := range over {
		switch key.kind {
		case "Pod":
			pod := heldPod{ResourceVersion: o.GetResourceVersion(), Protocol: "TCP"}
			if o.GetAnnotations()["ambient.istio.io/redirection"] == "enabled" {
				pod.Protocol = "HBONE"
			}
			pod.Ready = isReady(o)
			held.Pods[string(o.GetUID())] = pod
		case "Service":
			addresses, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "clusterIPs")
			held.Services[key.namespace+"/"+key.name] = heldService{o.GetResourceVersion(), addresses}
		}
	}
	return held
}

func isReady(pod *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == "Ready" {
			return condition["status"] == "True"
		}
	}
	return false
}

// Writes it, when it is something else than before.
func (a acknowledged) tell(before []byte) []byte {
	path := os.Getenv("ACKNOWLEDGED_FILE")
	now, err := json.Marshal(a)
	if err != nil || path == "" || bytes.Equal(now, before) {
		return before
	}
	if err := writeWhole(filepath.Clean(path), now); err != nil {
		log.Print("ACKNOWLEDGED_FILE: ", err)
		return before
	}
	return now
}
