// Package snapshot is the format of snapshot files: their names, a writer and a
// reader.
//
// A file is a chain of independent zstd frames, each preceded by a skippable frame
// with its length and checksum. So frames are compressed and decompressed in
// parallel while the file is written and read, and plain "zstd -dc" reads it:
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
//	                  of the previous info; the first continues from 0
//
// Each info thereby covers everything before it: missing, swapped and foreign
// frames are detected like flipped bits.
//
// Decompressed, the file is SnapshotRecord messages (internal/event/xdswal.proto),
// each preceded by its length as a varint. A file without a trailer is incomplete.
//
// The reader accepts only what the writer writes, to the last byte. This package
// opens no files, and does not import the state: it reads into a [Sink].
package snapshot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format"
	"github.com/xdswal/xdswal/journal"
)

// Header is the content of a snapshot's first frame.
type Header struct {
	// Sequence is the sequence of the state: the snapshot is the fold of events 1 to
	// Sequence. Time is the time of the last of them.
	Sequence journal.Sequence
	Time     time.Time
	// Epoch is the epoch of the writer.
	Epoch uint64
	// Created is the time when the snapshot was written.
	Created time.Time
	// StoreID identifies the store of the events.
	StoreID string
}

// Trailer is the content of a snapshot's last frame.
type Trailer struct {
	Nodes     int
	Resources int
	// Bytes is the sum of the sizes of the resources' values.
	Bytes int64
	// Digest is the digest of the state.
	Digest [32]byte
}

// Name is the name of a snapshot. Names sort as text by epoch, up to epoch
// 9,999,999,999, and then by sequence.
type Name struct {
	// Epoch is the epoch of the writer, Sequence the sequence of the state.
	Epoch    uint64
	Sequence journal.Sequence
}

const nameKind = "snapshot"

// String returns for example "snapshot-0000000003-00000000000000001234.zst".
func (n Name) String() string { return format.Name(nameKind, n.Epoch, n.Sequence) }

// ParseName parses the last element of a snapshot's path or key. It returns false
// for any other name.
func ParseName(s string) (Name, bool) {
	epoch, seq, ok := format.ParseName(nameKind, s)
	return Name{Epoch: epoch, Sequence: seq}, ok
}

const (
	infoSize        = 28
	skippableMagic  = 0x184D2A5E
	infoMagic       = "XWS"
	fileFormat      = 1
	targetFrameSize = 1 << 20
	// maxFrameSize limits the memory that a reader allocates for one frame. Only a
	// frame that ends with a large resource is larger than the target.
	maxFrameSize = 1 << 30
	// maxCompressed allows for a frame that does not compress.
	maxCompressed = maxFrameSize + maxFrameSize/64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// info describes the zstd frame that follows it.
type info struct {
	compressed, raw, crc uint32
}

// append appends the info. prev is the checksum at the end of the previous info, 0
// for the first one.
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
		return info{}, fmt.Errorf("%w: frame info with magic %q is missing", event.ErrCorrupt, infoMagic)
	}
	if got, want := crc32.Update(prev, castagnoli, b[8:24]), infoChecksum(b); got != want {
		return info{}, fmt.Errorf("%w: got frame info checksum %08x, want %08x: its bytes or the frames before it changed", event.ErrCorrupt, got, want)
	}
	if b[11] != fileFormat {
		return info{}, fmt.Errorf("%w: got snapshot format %d, want %d", event.ErrVersion, b[11], fileFormat)
	}
	i := info{
		compressed: binary.LittleEndian.Uint32(b[12:]),
		raw:        binary.LittleEndian.Uint32(b[16:]),
		crc:        binary.LittleEndian.Uint32(b[20:]),
	}
	if i.raw > maxFrameSize || i.compressed > maxCompressed {
		return info{}, fmt.Errorf("%w: got a frame of %d bytes, %d compressed, want at most %d", event.ErrCorrupt, i.raw, i.compressed, maxFrameSize)
	}
	return i, nil
}
