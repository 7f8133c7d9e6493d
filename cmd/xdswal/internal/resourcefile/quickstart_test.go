package resourcefile_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
)

const quickstart = "../../../../examples/quickstart/resources"

func TestQuickstartResources(t *testing.T) {
	files, err := filepath.Glob(quickstart + "/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			d := parseFile(t, file)
			snapshot, err := d.Snapshot()
			require.NoError(t, err)
			require.NoError(t, snapshot.Consistent())
			for _, r := range d.Resources {
				v, ok := r.Message.(interface{ ValidateAll() error })
				require.True(t, ok, r.TypeURL)
				require.NoError(t, v.ValidateAll())
			}
			requireRoundTrip(t, d)
			requireRoutesHaveClusters(t, d)
		})
	}
}

func parseFile(t *testing.T, file string) *resourcefile.Document {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	d, err := resourcefile.Parse(data)
	require.NoError(t, err)
	return d
}

// requireRoutesHaveClusters covers what Consistent does not: each EDS cluster of the
// example exists with endpoints, and each listener is named.
func requireRoutesHaveClusters(t *testing.T, d *resourcefile.Document) {
	t.Helper()
	names := make(map[string]map[string]bool)
	for _, r := range d.Resources {
		if names[r.TypeURL] == nil {
			names[r.TypeURL] = make(map[string]bool)
		}
		names[r.TypeURL][r.Name] = true
	}
	require.Equal(t, names[resource.ClusterType], names[resource.EndpointType])
	for _, r := range d.Resources {
		switch m := r.Message.(type) {
		case *cluster.Cluster:
			require.NotNil(t, m.GetEdsClusterConfig().GetEdsConfig().GetAds())
		case *listener.Listener:
			require.True(t, m.GetAddress() != nil || m.GetApiListener() != nil)
		}
	}
}

func TestQuickstartCertificateServes(t *testing.T) {
	d := parseFile(t, quickstart+"/edge-1.yaml")
	for _, r := range d.Resources {
		secret, ok := r.Message.(*tlsv3.Secret)
		if !ok || secret.GetTlsCertificate() == nil {
			continue
		}
		pair, err := tls.X509KeyPair(
			[]byte(secret.GetTlsCertificate().GetCertificateChain().GetInlineString()),
			[]byte(secret.GetTlsCertificate().GetPrivateKey().GetInlineString()))
		require.NoError(t, err)
		require.Equal(t, "example", pair.Leaf.Subject.CommonName)
		require.True(t, pair.Leaf.NotAfter.After(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)))
		return
	}
	t.Fatal("edge-1.yaml has no certificate")
}
