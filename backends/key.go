package backends

import (
	"fmt"
	"strings"
)

// MaxKeyLen is the maximum length of a key, in bytes.
const MaxKeyLen = 512

// maxSegmentLen is the longest name that common file systems accept.
const maxSegmentLen = 255

// tempPrefix is the prefix of names that drivers use for incomplete objects.
const tempPrefix = ".tmp-"

// ValidKey returns nil if key can name an object in every backend, or else an
// error that wraps [ErrKey].
//
// A key is one or more segments separated by single slashes, and at most
// [MaxKeyLen] bytes long. A segment is 1 to 255 bytes of A-Z a-z 0-9 . _ = - and
// is neither "." nor "..", and does not begin with ".tmp-".
func ValidKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: key is empty", ErrKey)
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("%w: got %d bytes, want at most %d", ErrKey, len(key), MaxKeyLen)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if err := validSegment(segment); err != nil {
			return err
		}
	}
	return nil
}

func validSegment(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: empty segment (leading, trailing or double slash)", ErrKey)
	case s == "." || s == "..":
		return fmt.Errorf("%w: segment %q", ErrKey, s)
	case strings.HasPrefix(s, tempPrefix):
		return fmt.Errorf("%w: segment %q begins with %q, which is reserved for incomplete objects", ErrKey, s, tempPrefix)
	case len(s) > maxSegmentLen:
		return fmt.Errorf("%w: got a segment of %d bytes, want at most %d", ErrKey, len(s), maxSegmentLen)
	}
	for i := range len(s) {
		if !validByte(s[i]) {
			return fmt.Errorf("%w: byte %q in segment %q, want A-Z a-z 0-9 . _ = -", ErrKey, s[i:i+1], s)
		}
	}
	return nil
}

func validByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return c == '.' || c == '_' || c == '=' || c == '-'
	}
}
