package backends

import (
	"fmt"
	"strings"
)

const (
	// MaxKeyLen is the greatest length of a key, in bytes.
	MaxKeyLen = 512
	// MaxSegmentLen is the greatest length of one segment of a key, in bytes:
	// the longest name that common file systems take.
	MaxSegmentLen = 255
)

// tempPrefix begins names that drivers keep for objects not yet complete.
const tempPrefix = ".tmp-"

// ValidKey returns nil if key can name an object in every backend, else an
// error that is [ErrKey] and says why.
//
// A key is one or more segments joined by single slashes, at most [MaxKeyLen]
// bytes in all. A segment is 1 to [MaxSegmentLen] bytes of A-Z a-z 0-9 . _ = -
// and is neither "." nor "..", nor does it begin with ".tmp-".
func ValidKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrKey)
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrKey, len(key), MaxKeyLen)
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
		return fmt.Errorf("%w: empty segment (a leading, trailing or double slash)", ErrKey)
	case s == "." || s == "..":
		return fmt.Errorf("%w: segment %q", ErrKey, s)
	case strings.HasPrefix(s, tempPrefix):
		return fmt.Errorf("%w: segment %q begins with %q, which is kept for incomplete objects", ErrKey, s, tempPrefix)
	case len(s) > MaxSegmentLen:
		return fmt.Errorf("%w: segment of %d bytes, the limit is %d", ErrKey, len(s), MaxSegmentLen)
	}
	for i := range len(s) {
		if !validByte(s[i]) {
			return fmt.Errorf("%w: byte %q in segment %q; use A-Z a-z 0-9 . _ = -", ErrKey, s[i:i+1], s)
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
