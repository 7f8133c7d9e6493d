//go:build !go1.25

package xdscache

// canCompareAddresses is false, because Go 1.24 exits when a weak pointer to a message
// in a global variable is made. Messages are compared by their content, which is
// slower.
const canCompareAddresses = false
