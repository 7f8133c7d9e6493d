package envoytest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
)

// Config is the configuration that Envoy uses.
type Config struct {
	// Clusters, Endpoints, Listeners and Routes are what Envoy uses, by name. Envoy makes
	// Endpoints from its hosts, so they have only the addresses of what was sent.
	Clusters, Endpoints, Listeners, Routes map[string]Resource
	// Warming are the names of clusters and listeners that Envoy does not use yet.
	Warming []string
	// Rejected are the reasons why Envoy does not use its newest listeners, by name.
	Rejected map[string]string
}

// Config reads Envoy's configuration.
func (e *Envoy) Config(ctx context.Context) (*Config, error) {
	data, err := e.get(ctx, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	type cluster struct{ Cluster Resource }
	type listener struct{ Listener Resource }
	var dump struct {
		Configs []struct {
			ActiveClusters  []cluster `json:"dynamic_active_clusters"`
			WarmingClusters []cluster `json:"dynamic_warming_clusters"`
			Endpoints       []struct {
				Config Resource `json:"endpoint_config"`
			} `json:"dynamic_endpoint_configs"`
			Listeners []struct {
				Name    string
				Active  *listener                 `json:"active_state"`
				Warming *listener                 `json:"warming_state"`
				Error   *struct{ Details string } `json:"error_state"`
			} `json:"dynamic_listeners"`
			Routes []struct {
				Config Resource `json:"route_config"`
			} `json:"dynamic_route_configs"`
		}
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		return nil, fmt.Errorf("decode envoy's config_dump: %w", err)
	}
	c := &Config{
		Clusters: map[string]Resource{}, Endpoints: map[string]Resource{}, Listeners: map[string]Resource{},
		Routes: map[string]Resource{}, Rejected: map[string]string{},
	}
	for _, part := range dump.Configs {
		for _, x := range part.ActiveClusters {
			c.Clusters[nameOf(x.Cluster)] = x.Cluster
		}
		for _, x := range part.WarmingClusters {
			c.Warming = append(c.Warming, "cluster "+nameOf(x.Cluster))
		}
		for _, x := range part.Endpoints {
			c.Endpoints[nameOf(x.Config)] = x.Config
		}
		for _, x := range part.Routes {
			c.Routes[nameOf(x.Config)] = x.Config
		}
		for _, x := range part.Listeners {
			if x.Active != nil {
				c.Listeners[x.Name] = x.Active.Listener
			}
			if x.Warming != nil {
				c.Warming = append(c.Warming, "listener "+x.Name)
			}
			if x.Error != nil {
				c.Rejected[x.Name] = x.Error.Details
			}
		}
	}
	return c, nil
}

func nameOf(r Resource) string {
	name, ok := r["name"].(string)
	if !ok {
		name, _ = r["cluster_name"].(string)
	}
	return name
}

// Await waits until Envoy uses exactly the resources of its node, at most for the timeout.
// It returns how long that took, and the remaining difference, which is "" if there is
// none.
func (e *Envoy) Await(ctx context.Context, resources []Resource, timeout time.Duration) (took time.Duration, diff string, err error) {
	start := time.Now()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		config, err := e.Config(ctx)
		if err != nil {
			return time.Since(start), "", err
		}
		diff, err := config.Diff(resources)
		if took := time.Since(start); err != nil || diff == "" || took > timeout {
			return took, diff, err
		}
		<-poll.C
	}
}

// FetchTimeouts returns how often Envoy has waited in vain for the first answer about
// something that it had asked for.
func (e *Envoy) FetchTimeouts(ctx context.Context) (int64, error) {
	return e.Sum(ctx, `\.init_fetch_timeout$`)
}

// Diff returns the first difference between the configuration that Envoy uses and the
// resources of its node, or "".
func (c *Config) Diff(resources []Resource) (string, error) {
	if len(c.Warming) > 0 {
		return "warming: " + strings.Join(c.Warming, ", "), nil
	}
	counts := map[string]int{}
	for _, want := range resources {
		url, _ := want["@type"].(string)
		got := c.ofType(url)[nameOf(want)]
		kind := url[strings.LastIndex(url, ".")+1:]
		if got == nil {
			return fmt.Sprintf("%s %q is missing", kind, nameOf(want)), nil
		}
		if equal, err := equalResources(got, want); err != nil || !equal {
			return fmt.Sprintf("%s %q differs", kind, nameOf(want)), err
		}
		counts[url]++
	}
	for url, got := range map[string]int{clusterType: len(c.Clusters), listenType: len(c.Listeners)} {
		if got != counts[url] {
			return fmt.Sprintf("envoy has %d of %s, its node %d", got, url, counts[url]), nil
		}
	}
	return "", nil
}

func (c *Config) ofType(url string) map[string]Resource {
	return map[string]map[string]Resource{
		clusterType: c.Clusters, loadType: c.Endpoints, listenType: c.Listeners, routeType: c.Routes,
	}[url]
}

func equalResources(got, want Resource) (bool, error) {
	if want["@type"] == loadType {
		return fmt.Sprint(Addresses(got)) == fmt.Sprint(Addresses(want)), nil
	}
	a, err := Message(got)
	if err != nil {
		return false, err
	}
	b, err := Message(want)
	if err != nil {
		return false, err
	}
	return proto.Equal(a, b), nil
}

// Stats returns the counters and gauges whose name matches a regular expression.
func (e *Envoy) Stats(ctx context.Context, filter string) (map[string]int64, error) {
	data, err := e.get(ctx, "/stats?format=json&type=All&filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Stats []struct {
			Name  string
			Value any // a number, or a text
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("decode envoy's stats: %w", err)
	}
	stats := map[string]int64{}
	for _, s := range answer.Stats {
		if n, ok := s.Value.(float64); ok {
			stats[s.Name] = int64(n)
		}
	}
	return stats, nil
}

// Sum returns the sum of the stats whose name matches a regular expression.
func (e *Envoy) Sum(ctx context.Context, filter string) (int64, error) {
	stats, err := e.Stats(ctx, filter)
	var sum int64
	for _, n := range stats {
		sum += n
	}
	return sum, err
}

func (e *Envoy) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.admin+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask envoy's admin interface: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of envoy's admin interface: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("envoy's admin interface: GET %s: %s", path, resp.Status)
	}
	return data, nil
}
