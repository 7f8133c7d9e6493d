package xdscache

// CanCompareAddresses is false with Go 1.24, where addresses are not compared.
const CanCompareAddresses = canCompareAddresses
