package conformance

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	v1 "sigs.k8s.io/gateway-api/apis/v1"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"
)

type condition = metav1.Condition

const (
	name  = "waypoint"
	class = "ambit-waypoint"
)

// waypoint does what users of an ambient mesh do, and nothing else: a Gateway in the namespace of the services that routes are
// for, and the label on that namespace. Callers' namespaces need none.
func waypoint(t *testing.T, s *suite.ConformanceTestSuite) {
	ctx, namespace := context.Background(), suite.MeshNamespace
	gateway := &v1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: v1.GatewaySpec{
			GatewayClassName: class,
			Listeners:        []v1.Listener{{Name: "mesh", Port: 15008, Protocol: "HBONE"}},
		},
	}
	require.NoError(t, client.IgnoreAlreadyExists(s.Client.Create(ctx, gateway)))
	label := []byte(`{"metadata": {"labels": {"istio.io/use-waypoint": "` + name + `"}}}`)
	of := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	require.NoError(t, s.Client.Patch(ctx, of, client.RawPatch("application/merge-patch+json", label)))

	key := client.ObjectKeyFromObject(gateway)
	ready := func() bool { return programmed(ctx, s.Client, key) }
	require.Eventually(t, ready, s.TimeoutConfig.GatewayMustHaveCondition, time.Second, "the waypoint is not programmed")
	// The suite asks for it of every pod; of this one it has not seen yet that it is there.
	available := func() bool {
		pods := &corev1.PodList{}
		mine := client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": name}
		return s.Client.List(ctx, pods, client.InNamespace(namespace), mine) == nil && anyReady(pods.Items)
	}
	require.Eventually(t, available, s.TimeoutConfig.NamespacesMustBeReady, time.Second, "no pod of the waypoint is Ready")
}

func anyReady(pods []corev1.Pod) bool {
	for _, pod := range pods {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true
			}
		}
	}
	return false
}

func save(path string, report *confv1.ConformanceReport) error {
	text, err := yaml.Marshal(report)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
