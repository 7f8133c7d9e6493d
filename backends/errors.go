package backends

import (
	"errors"
	"strconv"
	"strings"
)

// Errors of a [Backend]. Test for them with errors.Is.
var (
	// ErrNotFound means that the key is missing.
	ErrNotFound = errors.New("object not found")
	// ErrExists means that Put did not create an object because the key exists.
	ErrExists = errors.New("object already exists")
	// ErrRange means that a range is not wholly inside the object.
	ErrRange = errors.New("range is not inside the object")
	// ErrKey means that a key is not valid, or that it cannot exist together with
	// an existing key; see [Backend].
	ErrKey = errors.New("invalid key")
	// ErrDamaged means that the bytes read from an object differ from those that
	// were put. A driver that stores checksums returns it from Read instead of
	// the last bytes of the object or of io.EOF.
	ErrDamaged = errors.New("object is damaged: its checksum does not match")
	// ErrPermission means that the store denies the operation, or that the
	// backend was opened read-only.
	ErrPermission = errors.New("permission denied")
)

// Error is the error of an operation of a backend.
type Error struct {
	Op      string // "open", "put", "get", "list", "delete" or "sweep"
	Backend string // location, without credentials; the result of Backend.String
	Key     string // key, or prefix of a list; may be empty
	Err     error  // cause
}

// Error returns a message such as:
//
//	put "snapshots/7" in file:///var/lib/xdswal: object already exists
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

// quote quotes a key for a message, and shortens one that is too long to be valid.
func quote(key string) string {
	if len(key) > MaxKeyLen {
		return strconv.Quote(key[:32]) + "..."
	}
	return strconv.Quote(key)
}
