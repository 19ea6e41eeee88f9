// Package conformance runs the Gateway API's conformance suite for meshes, as it is published, against Ambit on a Kubernetes
// cluster that KUBECONFIG names.
package conformance

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"
	v1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// profiles are all that are about meshes.
var profiles = []suite.ConformanceProfileName{suite.MeshHTTPConformanceProfileName, suite.MeshGRPCConformanceProfileName}

// exempt are the features of gateways, which Ambit is not: a test that is not run needs `Gateway`.
var exempt = []features.FeatureName{features.SupportGateway, features.SupportReferenceGrant}

// ran is how many tests of the suite are about meshes.
const ran = 23

// TestMesh runs all tests for meshes. What the suite lets its users choose and does not change what is tested (-run-test,
// -debug, -report-output, -version) are arguments.
func TestMesh(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.ConformanceProfiles = profiles
	options.EnableAllSupportedFeatures = true
	options.ExemptFeatures = exempt
	options.SkipTests = nil
	passed := map[string]bool{}
	options.Hook = func(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
		if !t.Failed() && !t.Skipped() {
			passed[test.ShortName] = true
		}
	}
	options.NamespaceLabels = map[string]string{"istio.io/dataplane-mode": "ambient"}
	options.Implementation.Organization = "ambit"
	options.Implementation.Project = "ambit"
	options.Implementation.URL = "https://ambit.dev"
	options.Implementation.Contact = []string{"https://ambit.dev"}

	s, err := suite.NewConformanceTestSuite(options)
	require.NoError(t, err)
	count := 0
	for _, test := range tests.ConformanceTests {
		if s.SupportedFeatures.HasAll(test.Features...) {
			count++
		} else {
			require.Truef(t, slices.Contains(test.Features, features.SupportGateway), "%s is not run", test.ShortName)
		}
	}
	require.Equal(t, ran, count, "tests about meshes")

	// After the suite's own cleanups, of which one says that it ran.
	t.Cleanup(func() { write(t, s, options, passed) })
	s.Setup(t, tests.ConformanceTests)
	waypoint(t, s)
	require.NoError(t, s.Run(t, tests.ConformanceTests))
}

// write writes the report, and fails the test where the suite would call it less than conformant.
//
// The report counts for a profile the tests whose features are all of that profile. Those that need one of HTTPRoute beside
// (ResponseHeaderModification, 303RedirectStatusCode) are in none of its numbers, so the names of all that passed are written, too.
func write(t *testing.T, s *suite.ConformanceTestSuite, options suite.ConformanceOptions, passed map[string]bool) {
	if options.RunTest != "" || options.ReportOutputPath == "" {
		return
	}
	report, err := s.Report()
	require.NoError(t, err)
	require.NoError(t, save(options.ReportOutputPath, report))
	names := slices.Sorted(maps.Keys(passed))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(options.ReportOutputPath), "passed.txt"), []byte(strings.Join(names, "\n")+"\n"), 0o644))
	require.Len(t, names, ran, "tests that passed")
	require.Len(t, report.ProfileReports, len(profiles))
	for _, profile := range report.ProfileReports {
		conformant(t, profile.Name+": core", profile.Core.Result, profile.Core.SkippedTests)
		// No test is about gRPC and an extended feature.
		if extended := profile.Extended; extended != nil {
			conformant(t, profile.Name+": extended", extended.Result, extended.SkippedTests)
			require.Emptyf(t, extended.UnsupportedFeatures, "%s: features", profile.Name)
		}
	}
}

func conformant(t *testing.T, part string, result confv1.Result, skipped []string) {
	require.Equal(t, confv1.Success, result, part)
	require.Empty(t, skipped, part)
}

// programmed tells whether a Gateway is, in its present generation.
func programmed(ctx context.Context, c client.Client, key client.ObjectKey) bool {
	gateway := &v1.Gateway{}
	if c.Get(ctx, key, gateway) != nil {
		return false
	}
	return slices.ContainsFunc(gateway.Status.Conditions, func(c condition) bool {
		return c.Type == string(v1.GatewayConditionProgrammed) && c.Status == "True" && c.ObservedGeneration == gateway.Generation
	})
}
