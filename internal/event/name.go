package event

import (
	"fmt"
	"strings"

	"github.com/xdswal/xdswal/journal"
)

const nameSuffix = ".zst"

// FormatName returns the name of a file of some kind that belongs to an epoch and
// a sequence: for "snapshot", 3 and 1234 it is
// "snapshot-0000000003-00000000000000001234.zst". Names of a kind sort as text in
// the order of their epochs, up to 9,999,999,999 of them, and then of their
// sequences.
func FormatName(kind string, epoch uint64, seq journal.Sequence) string {
	return fmt.Sprintf("%s-%010d-%s%s", kind, epoch, seq, nameSuffix)
}

// ParseName parses the last element of the path or key of a file of some kind. It
// reports false for what is not the name of one.
func ParseName(kind, path string) (epoch uint64, seq journal.Sequence, ok bool) {
	base := path[strings.LastIndexByte(path, '/')+1:]
	body, hasPrefix := strings.CutPrefix(base, kind+"-")
	body, hasSuffix := strings.CutSuffix(body, nameSuffix)
	first, second, hasDash := strings.Cut(body, "-")
	e, err1 := ParseSequence(first)
	q, err2 := ParseSequence(second)
	if !hasPrefix || !hasSuffix || !hasDash || err1 != nil || err2 != nil {
		return 0, 0, false
	}
	// Other digits for the same numbers would name another object.
	if FormatName(kind, uint64(e), q) != base {
		return 0, 0, false
	}
	return uint64(e), q, true
}
