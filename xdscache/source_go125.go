//go:build go1.25

package xdscache

// canCompareAddresses reports whether isSource can be true.
const canCompareAddresses = true
