package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const systemNamespace = "istio-system"

// What names an object.
type key struct {
	apiVersion, kind, namespace, name string
}

func keyOf(o *unstructured.Unstructured) key {
	return key{o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName()}
}

type objects map[key]*unstructured.Unstructured

// The folder, and the overlay of what the machine knows.
type source struct {
	settings
	// What each file said when it was last good.
	files map[string]file
	held  acknowledged
}

type file struct {
	content []byte
	objects objects
}

// All objects that should be there.
func (s *source) read() objects {
	all, over := s.below(s.folder), s.below(s.overlay)
	s.held = acknowledgedOf(over)
	if s.waypoints != "" {
		for key, o := range s.below(s.waypoints) {
			all[key] = o
		}
	}
	for key, o := range all {
		if over[key] == nil && waits(o) {
			delete(all, key)
		}
	}
	for key, o := range over {
		base, known := all[key]
		switch {
		case known:
			lay(base.Object, o.Object)
		case key.kind == "Node" || key.kind == "Pod" && key.namespace == systemNamespace:
			all[key] = o
		}
	}
	withNamespaces(all)
	for _, o := range all {
		complete(o)
	}
	return all
}

// Whether the machine has still to say where a pod runs, or which addresses a service has: neither can change later.
func waits(o *unstructured.Unstructured) bool {
	switch o.GetKind() {
	case "Pod":
		return true
	case "Service":
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "type")
		address, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP")
		return kind != "ExternalName" && address == ""
	}
	return false
}

func (s *source) below(root string) objects {
	all := objects{}
	now := map[string]file{}
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		extension := filepath.Ext(path)
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || extension != ".yaml" && extension != ".yml" {
			return nil // What goes while we look is seen the next time.
		}
		content, err := os.ReadFile(path)
		was := s.files[path]
		var read objects
		switch {
		case err != nil || was.content != nil && bytes.Equal(content, was.content):
			read = was.objects
		default:
			if read, err = parse(content); err != nil {
				log.Printf("%s: %v (what was last good stays)", path, err)
				read = was.objects
			}
		}
		now[path] = file{content, read}
		for key, o := range now[path].objects {
			all[key] = o.DeepCopy()
		}
		return nil
	})
	if s.files == nil {
		s.files = map[string]file{}
	}
	for path := range s.files {
		if strings.HasPrefix(path, root) {
			delete(s.files, path)
		}
	}
	for path, file := range now {
		s.files[path] = file
	}
	return all
}

func parse(content []byte) (objects, error) {
	all := objects{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := decoder.Decode(o); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case len(o.Object) > 0:
			all[keyOf(o)] = o
		}
	}
}

// Lays the fields of one object over another's.
func lay(base, over map[string]any) {
	for name, value := range over {
		inner, isMap := value.(map[string]any)
		if below, both := base[name].(map[string]any); isMap && both {
			lay(below, inner)
		} else if value != nil {
			base[name] = value
		}
	}
}

// Namespaces that nobody wrote are there all the same.
func withNamespaces(all objects) {
	names := map[string]bool{systemNamespace: true}
	for key := range all {
		names[key.namespace] = true
	}
	delete(names, "")
	for name := range names {
		key := key{"v1", "Namespace", "", name}
		if all[key] == nil {
			o := &unstructured.Unstructured{}
			o.SetAPIVersion("v1")
			o.SetKind("Namespace")
			o.SetName(name)
			all[key] = o
		}
	}
}

// What a Kubernetes insists on and the machine does not.
func complete(o *unstructured.Unstructured) {
	switch o.GetKind() {
	case "Pod":
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "containers")
		for _, c := range containers {
			if container, ok := c.(map[string]any); ok && container["image"] == nil {
				container["image"] = "none"
			}
		}
		_ = unstructured.SetNestedSlice(o.Object, containers, "spec", "containers")
		// The machine's own name of this life of the pod: another one is another pod.
		if uid := string(o.GetUID()); uid != "" {
			annotations := o.GetAnnotations()
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[lifeAnnotation] = uid
			o.SetAnnotations(annotations)
		}
	case "Node":
		// One of each type is all that applying tells apart.
		addresses, _, _ := unstructured.NestedSlice(o.Object, "status", "addresses")
		seen := map[any]bool{}
		addresses = slices.DeleteFunc(addresses, func(a any) bool {
			address, ok := a.(map[string]any)
			again := !ok || seen[address["type"]]
			seen[address["type"]] = true
			return again
		})
		_ = unstructured.SetNestedSlice(o.Object, addresses, "status", "addresses")
	case "Service":
		if kind, _, _ := unstructured.NestedString(o.Object, "spec", "type"); kind == "ExternalName" {
			unstructured.RemoveNestedField(o.Object, "spec", "clusterIP")
			unstructured.RemoveNestedField(o.Object, "spec", "clusterIPs")
		}
		addresses, _, _ := unstructured.NestedSlice(o.Object, "spec", "clusterIPs")
		policy, _, _ := unstructured.NestedString(o.Object, "spec", "ipFamilyPolicy")
		if len(addresses) == 2 && policy == "" {
			_ = unstructured.SetNestedField(o.Object, "RequireDualStack", "spec", "ipFamilyPolicy")
		}
	}
	// What it gives itself.
	unstructured.RemoveNestedField(o.Object, "metadata", "uid")
	unstructured.RemoveNestedField(o.Object, "metadata", "resourceVersion")
	unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
}
