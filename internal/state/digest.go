package state

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/xdswal/xdswal/journal"
)

// Digest returns the SHA-256 of the state's sequences and of everything that a client
// can see of it. docs/format/snapshot.md defines its exact input.
func (s *State) Digest() [sha256.Size]byte {
	d := digest{hash: sha256.New(), buf: make([]byte, 0, 32<<10)}
	d.number(uint64(s.seq))
	d.number(uint64(s.nodes.size))
	for n := range s.All() {
		d.text(n.cache)
		d.text(n.name)
		d.number(uint64(n.seq))
		d.number(uint64(len(n.types)))
		for i := range n.types {
			t := &n.types[i]
			d.text(t.url)
			d.text(t.version)
			d.number(uint64(t.resources.size))
			for r := range t.All() {
				d.resource(r)
			}
		}
	}
	d.flush()
	return [sha256.Size]byte(d.hash.Sum(nil))
}

// digest hashes numbers as 8 bytes, big-endian, and texts after their length. It
// buffers small pieces, because each call of the hash has a cost.
type digest struct {
	hash hash.Hash
	buf  []byte
}

// directSize is the size from which hashing a value in place is cheaper than copying
// it to the buffer.
const directSize = 256

func (d *digest) resource(r *journal.Resource) {
	d.text(r.Name)
	d.text(r.TypeURL)
	d.text(r.Version)
	ttl := int64(-1)
	if r.TTL != nil {
		ttl = int64(*r.TTL)
	}
	d.number(uint64(ttl))
	d.value(r.Value)
}

func (d *digest) number(n uint64) {
	d.reserve(8)
	d.buf = binary.BigEndian.AppendUint64(d.buf, n)
}

func (d *digest) text(s string) {
	d.number(uint64(len(s)))
	d.reserve(len(s))
	d.buf = append(d.buf, s...)
}

func (d *digest) value(b []byte) {
	d.number(uint64(len(b)))
	if len(b) >= directSize {
		d.flush()
		d.hash.Write(b)
		return
	}
	d.reserve(len(b))
	d.buf = append(d.buf, b...)
}

// reserve makes space for n bytes in the buffer.
func (d *digest) reserve(n int) {
	if len(d.buf)+n > cap(d.buf) {
		d.flush()
	}
}

func (d *digest) flush() {
	d.hash.Write(d.buf)
	d.buf = d.buf[:0]
}
