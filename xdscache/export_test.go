package xdscache

// AddressesTell is false with Go 1.24, where equal addresses prove nothing.
const AddressesTell = addressesTell
