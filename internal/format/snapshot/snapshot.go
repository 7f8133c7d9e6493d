// Package snapshot is the snapshot file format: names, writer and reader.
//
// A file is a chain of independent zstd frames, each preceded by a skippable
// frame that tells its length and checksum, so that frames are compressed and
// decompressed in parallel while the file streams by, and plain "zstd -dc"
// reads it:
//
//	+------+-------------+------+-----------------+-----+------+--------------+
//	| info | header      | info | nodes, types,   | ... | info | trailer      |
//	|      | (zstd frame)|      | resources (zstd)|     |      | (zstd frame) |
//	+------+-------------+------+-----------------+-----+------+--------------+
//
//	info, 28 bytes, numbers little-endian:
//	 0  5e 2a 4d 18   zstd skippable frame
//	 4  14 00 00 00   of 20 bytes
//	 8  58 57 53      magic "XWS"
//	11  01            format
//	12  xx * 4        compressed length of the frame that follows
//	16  xx * 4        its decompressed length
//	20  xx * 4        CRC-32C of its compressed bytes
//	24  xx * 4        CRC-32C of bytes 8 to 23, continued from bytes 24 to 27
//	                  of the info before; the first starts afresh
//
// So each info vouches for all that stands before it, and frames that are
// missing, swapped or taken from another file are as evident as flipped bits.
//
// Decompressed, the file is SnapshotRecord messages (internal/event/xdswal.proto),
// each preceded by its length as a varint. A file without its trailer was cut.
package snapshot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Header is what a snapshot says of itself in its first frame.
type Header struct {
	// Sequence: the snapshot is the fold of events 1 to Sequence.
	Sequence journal.Sequence
	// Time is the time of the event with that sequence.
	Time time.Time
	// Epoch is the epoch of the writer.
	Epoch uint64
	// Created is when the snapshot was written.
	Created time.Time
	// StoreID identifies the store whose events are folded.
	StoreID string
}

// Trailer is what a snapshot says of its contents in its last frame.
type Trailer struct {
	Nodes     int
	Resources int
	// Bytes is the sum of the resources' wire sizes.
	Bytes int64
	// Digest is the digest of the state.
	Digest [32]byte
}

// Name is the name of a snapshot: its writer's epoch and its sequence. Names
// sort as text in the order of their epochs, up to 9,999,999,999 of them, and
// then of their sequences.
type Name struct {
	Epoch    uint64
	Sequence journal.Sequence
}

// nameKind begins the name.
const nameKind = "snapshot"

// String returns for example "snapshot-0000000003-00000000000000001234.zst".
func (n Name) String() string {
	return event.FormatName(nameKind, n.Epoch, n.Sequence)
}

// ParseName parses the last element of a snapshot's path or key. It reports
// false for what is not a snapshot's name.
func ParseName(s string) (Name, bool) {
	epoch, seq, ok := event.ParseName(nameKind, s)
	return Name{Epoch: epoch, Sequence: seq}, ok
}

const (
	infoSize        = 28
	skippableMagic  = 0x184D2A5E
	infoMagic       = "XWS"
	fileFormat      = 1
	headerMagic     = "XWSS"
	targetFrameSize = 1 << 20
	// maxFrameSize bounds what a reader allocates for one frame. A frame
	// exceeds the target only where a single record does.
	maxFrameSize = 1 << 30
	// maxCompressed leaves room for a frame that does not compress.
	maxCompressed = maxFrameSize + maxFrameSize/64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// info is the frame that precedes each zstd frame.
type info struct {
	compressed, raw, crc uint32
}

// append appends the info; prev is the checksum at the end of the info before
// it, 0 for the first.
func (i info) append(b []byte, prev uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, skippableMagic)
	b = binary.LittleEndian.AppendUint32(b, infoSize-8)
	start := len(b)
	b = append(b, infoMagic...)
	b = append(b, fileFormat)
	b = binary.LittleEndian.AppendUint32(b, i.compressed)
	b = binary.LittleEndian.AppendUint32(b, i.raw)
	b = binary.LittleEndian.AppendUint32(b, i.crc)
	return binary.LittleEndian.AppendUint32(b, crc32.Update(prev, castagnoli, b[start:]))
}

// infoChecksum returns the checksum at the end of an info.
func infoChecksum(b []byte) uint32 { return binary.LittleEndian.Uint32(b[24:infoSize]) }

func parseInfo(b []byte, prev uint32) (info, error) {
	if binary.LittleEndian.Uint32(b) != skippableMagic || binary.LittleEndian.Uint32(b[4:]) != infoSize-8 ||
		string(b[8:11]) != infoMagic {
		return info{}, fmt.Errorf("%w: no frame information where it should stand", event.ErrCorrupt)
	}
	if crc32.Update(prev, castagnoli, b[8:24]) != infoChecksum(b) {
		return info{}, fmt.Errorf("%w: checksum of the frame information differs: its bytes changed, or it does not belong after what stands before it", event.ErrCorrupt)
	}
	if b[11] != fileFormat {
		return info{}, fmt.Errorf("%w: snapshot has format %d, this xdswal reads %d", event.ErrVersion, b[11], fileFormat)
	}
	i := info{
		compressed: binary.LittleEndian.Uint32(b[12:]),
		raw:        binary.LittleEndian.Uint32(b[16:]),
		crc:        binary.LittleEndian.Uint32(b[20:]),
	}
	if i.raw > maxFrameSize || i.compressed > maxCompressed {
		return info{}, fmt.Errorf("%w: frame of %d bytes, %d compressed", event.ErrCorrupt, i.raw, i.compressed)
	}
	return i, nil
}
