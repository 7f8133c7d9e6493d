// Package format defines the names of the files and objects whose contents the
// packages below it define. A name consists of a kind, an epoch and a sequence.
package format

import (
	"fmt"
	"strings"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

const suffix = ".zst"

// Name returns the name of a file: for "snapshot", 3 and 1234 it is
// "snapshot-0000000003-00000000000000001234.zst". Names of one kind sort as text by
// epoch, up to epoch 9,999,999,999, and then by sequence.
func Name(kind string, epoch uint64, seq journal.Sequence) string {
	return fmt.Sprintf("%s-%010d-%s%s", kind, epoch, seq, suffix)
}

// ParseName parses the last element of a path or key. It returns false for anything
// but a name of the kind, exactly as [Name] returns it.
func ParseName(kind, path string) (epoch uint64, seq journal.Sequence, ok bool) {
	base := path[strings.LastIndexByte(path, '/')+1:]
	body, hasPrefix := strings.CutPrefix(base, kind+"-")
	body, hasSuffix := strings.CutSuffix(body, suffix)
	first, second, hasDash := strings.Cut(body, "-")
	e, err1 := event.ParseSequence(first)
	seq, err2 := event.ParseSequence(second)
	if !hasPrefix || !hasSuffix || !hasDash || err1 != nil || err2 != nil || Name(kind, uint64(e), seq) != base {
		return 0, 0, false
	}
	return uint64(e), seq, true
}
