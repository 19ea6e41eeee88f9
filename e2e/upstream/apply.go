package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	v1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	lifeAnnotation = "ambit.dev/life"
	// Between two tries of what was refused.
	again = time.Second
)

// The API server, and what was brought there.
type cluster struct {
	client  kubernetes.Interface
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	there   objects
	refused map[key]refusal
	// Everything wanted was tried.
	settled bool
}

type refusal struct {
	object *unstructured.Unstructured
	at     time.Time
}

func newCluster(k keys) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", k.file("kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = -1, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return &cluster{client: client, dynamic: d, mapper: mapper, there: objects{}, refused: map[key]refusal{}}, nil
}

// Waits for the API server and teaches it upstream's kinds.
func (c *cluster) prepare(ctx context.Context, p *programs) error {
	files := p.files
	healthy := func() error {
		if err := p.allRun(); err != nil {
			return err
		}
		_, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	}
	if err := until(ctx, "kube-apiserver is ready", healthy); err != nil {
		return err
	}
	crds, err := filepath.Glob(filepath.Join(files, "crds", "*.yaml"))
	if err != nil || len(crds) == 0 {
		return fmt.Errorf("no CRDs below %s (see e2e/upstream/README.md): %v", files, err)
	}
	kinds := map[key]*unstructured.Unstructured{}
	for _, path := range crds {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		read, err := parse(content)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for key, o := range read {
			if key.kind == "CustomResourceDefinition" {
				kinds[key] = o
			}
		}
	}
	for key, o := range kinds {
		if err := c.apply(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", key.name, err)
		}
	}
	return until(ctx, "upstream's kinds are served", func() error {
		c.mapper.Reset()
		for _, o := range kinds {
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			if _, err := c.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Makes the API server hold what is wanted, of the objects that are ours.
func (c *cluster) bring(ctx context.Context, wanted objects) {
	for key := range c.there {
		// Nobody here would finish a namespace's end.
		if wanted[key] == nil && key.kind != "Namespace" {
			if err := c.remove(ctx, key); err != nil {
				log.Printf("cannot delete %s %s/%s: %v", key.kind, key.namespace, key.name, err)
				continue
			}
			delete(c.there, key)
		}
	}
	for _, o := range inOrder(wanted) {
		key := keyOf(o)
		if was := c.there[key]; was != nil && reflect.DeepEqual(was.Object, o.Object) {
			continue
		}
		if no, known := c.refused[key]; known && time.Since(no.at) < again && reflect.DeepEqual(no.object.Object, o.Object) {
			continue
		}
		if err := c.replace(ctx, o); err != nil {
			if ctx.Err() != nil {
				return
			}
			log.Printf("refused: %s %s/%s: %v", key.kind, key.namespace, key.name, err)
			c.refused[key] = refusal{o, time.Now()}
			continue
		}
		delete(c.refused, key)
		c.there[key] = o
	}
	c.settled = true
}

// What others refer to comes first; pods before what speaks of them.
func inOrder(all objects) []*unstructured.Unstructured {
	rank := func(o *unstructured.Unstructured) int {
		for i, kind := range []string{"Namespace", "Node", "ServiceAccount", "Service", "Pod"} {
			if kind == o.GetKind() {
				return i
			}
		}
		return 9
	}
	list := make([]*unstructured.Unstructured, 0, len(all))
	for _, o := range all {
		list = append(list, o)
	}
	sort.Slice(list, func(i, j int) bool { return rank(list[i]) < rank(list[j]) })
	return list
}

// Applies an object; one that cannot become what it should be is made anew.
func (c *cluster) replace(ctx context.Context, o *unstructured.Unstructured) error {
	was := c.there[keyOf(o)]
	anotherLife := was != nil && was.GetAnnotations()[lifeAnnotation] != "" &&
		was.GetAnnotations()[lifeAnnotation] != o.GetAnnotations()[lifeAnnotation]
	if !anotherLife {
		if err := c.apply(ctx, o); !errors.IsInvalid(err) || was == nil {
			return err
		}
	}
	if err := c.remove(ctx, keyOf(o)); err != nil {
		return err
	}
	return c.apply(ctx, o)
}

func (c *cluster) apply(ctx context.Context, o *unstructured.Unstructured) error {
	resource, err := c.resource(keyOf(o))
	if err != nil {
		return err
	}
	options := v1.ApplyOptions{FieldManager: "ambit", Force: true}
	body := o.DeepCopy()
	if o.GetKind() == "EndpointSlice" {
		c.nameLives(ctx, body)
	}
	unstructured.RemoveNestedField(body.Object, "status")
	if _, err := resource.Apply(ctx, o.GetName(), body, options); err != nil {
		return err
	}
	status, has := o.Object["status"]
	if !has || o.GetKind() == "CustomResourceDefinition" {
		return nil
	}
	only := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	only.SetAPIVersion(o.GetAPIVersion())
	only.SetKind(o.GetKind())
	only.SetNamespace(o.GetNamespace())
	only.SetName(o.GetName())
	_, err = resource.ApplyStatus(ctx, o.GetName(), only, options)
	return err
}

// Endpoints that are pods say which life of the pod they mean; only the API server knows its name.
func (c *cluster) nameLives(ctx context.Context, slice *unstructured.Unstructured) {
	endpoints, _, _ := unstructured.NestedSlice(slice.Object, "endpoints")
	for _, e := range endpoints {
		target, _, _ := unstructured.NestedMap(e.(map[string]any), "targetRef")
		name, _ := target["name"].(string)
		if target["kind"] != "Pod" || target["uid"] != nil {
			continue
		}
		// Without it the slice means no pod, and the mesh shows that.
		if pod, err := c.client.CoreV1().Pods(slice.GetNamespace()).Get(ctx, name, v1.GetOptions{}); err == nil {
			target["uid"] = string(pod.UID)
			_ = unstructured.SetNestedMap(e.(map[string]any), target, "targetRef")
		}
	}
	_ = unstructured.SetNestedSlice(slice.Object, endpoints, "endpoints")
}

func (c *cluster) remove(ctx context.Context, k key) error {
	resource, err := c.resource(k)
	if err != nil {
		return err
	}
	now := int64(0)
	err = resource.Delete(ctx, k.name, v1.DeleteOptions{GracePeriodSeconds: &now})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}

func (c *cluster) resource(k key) (dynamic.ResourceInterface, error) {
	kind := schema.FromAPIVersionAndKind(k.apiVersion, k.kind)
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return c.dynamic.Resource(mapping.Resource).Namespace(k.namespace), nil
	}
	return c.dynamic.Resource(mapping.Resource), nil
}
