package xdsserver

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of envoy.config.cluster.v3.Cluster, and of the messages below it, that decide
// when Envoy needs its endpoints. TestFieldNumbers holds them to Envoy's API.
const (
	clusterName             = 1
	clusterType             = 2
	clusterEDSConfig        = 3
	edsConfigServiceName    = 2
	clusterTypeEDS          = 3
	assignmentPolicy        = 4
	policyEndpointStaleness = 4
	durationSeconds         = 1
	durationNanos           = 2
)

// scanFields calls fn with each field of a message, until fn returns false or the rest
// is not a message. Reading these few fields is many times cheaper than decoding.
func scanFields(b []byte, fn func(num protowire.Number, varint uint64, bytes []byte) bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		var varint uint64
		var bytes []byte
		switch typ {
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 || !fn(num, varint, bytes) {
			return
		}
		b = b[n:]
	}
}

// assignmentName returns the name of the assignment that a marshaled cluster gets its
// endpoints from, or "" if it does not use EDS.
func assignmentName(cluster []byte) string {
	var name, service string
	eds := false
	scanFields(cluster, func(num protowire.Number, varint uint64, bytes []byte) bool {
		switch num {
		case clusterName:
			name = string(bytes)
		case clusterType:
			eds = varint == clusterTypeEDS
		case clusterEDSConfig:
			scanFields(bytes, func(num protowire.Number, _ uint64, bytes []byte) bool {
				if num == edsConfigServiceName {
					service = string(bytes)
				}
				return true
			})
		}
		return true
	})
	switch {
	case !eds:
		return ""
	case service != "":
		return service
	}
	return name
}

// staleAfter returns the time after which Envoy drops the endpoints of a marshaled
// assignment unless it receives it again, or 0.
func staleAfter(assignment []byte) time.Duration {
	var d time.Duration
	scanFields(assignment, func(num protowire.Number, _ uint64, policy []byte) bool {
		if num != assignmentPolicy {
			return true
		}
		scanFields(policy, func(num protowire.Number, _ uint64, duration []byte) bool {
			if num != policyEndpointStaleness {
				return true
			}
			d = 0
			scanFields(duration, func(num protowire.Number, varint uint64, _ []byte) bool {
				switch num {
				case durationSeconds:
					d += time.Duration(varint) * time.Second
				case durationNanos:
					d += time.Duration(varint)
				}
				return true
			})
			return true
		})
		return true
	})
	return d
}

// emptyAssignment returns a marshaled ClusterLoadAssignment without endpoints.
func emptyAssignment(name string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
}
