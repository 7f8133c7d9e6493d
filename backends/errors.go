package backends

import (
	"errors"
	"strconv"
	"strings"
)

// The sentinels of the [Backend] contract, to be tested for with errors.Is.
var (
	// ErrNotFound means that the key is missing.
	ErrNotFound = errors.New("object not found")
	// ErrExists means that Put found the key taken.
	ErrExists = errors.New("object exists already")
	// ErrRange means that Get was asked for bytes outside the object.
	ErrRange = errors.New("range outside the object")
	// ErrKey means that the key is not valid, or not beside the keys that exist.
	ErrKey = errors.New("invalid key")
	// ErrDamaged means that what a reader yielded is not what was put. It comes
	// in place of the object's last bytes or of its end, if the driver has a
	// checksum of the object.
	ErrDamaged = errors.New("the object's checksum is not that of the bytes that were read")
	// ErrPermission means that the store denies this operation to us.
	ErrPermission = errors.New("permission denied by the store")
)

// Error says which operation went wrong and where.
type Error struct {
	Op      string // "open", "put", "get", "list", "delete" or "sweep"
	Backend string // the location, without credentials, as of Backend.String
	Key     string // the key, or the prefix of a list; may be empty
	Err     error  // what happened
}

// Error returns, for example:
//
//	put "snapshots/7" in file:///var/lib/xdswal: object exists already
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Key != "" {
		b.WriteByte(' ')
		b.WriteString(quote(e.Key))
		b.WriteString(" in")
	}
	b.WriteByte(' ')
	b.WriteString(e.Backend)
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// quote quotes s for a message, cut if it is no sensible key.
func quote(s string) string {
	if len(s) > MaxKeyLen {
		return strconv.Quote(s[:32]) + "..."
	}
	return strconv.Quote(s)
}
