// Package boltpages reads and verifies bbolt files. It does not write, and does not
// know what the keys and values mean.
//
// bbolt maps its file and follows the page numbers in it, so a damaged page makes it
// panic, fault or loop. This package checks every page, offset and count before it
// uses one, and returns an error that names the page. No error contains a key or a
// value, since they may be secret. The format is version 2 of bbolt
// (internal/common/{page,meta,bucket}.go of go.etcd.io/bbolt v1.4).
//
// If all buckets of a file have been walked and its freelist has been checked without
// an error, bbolt can write to the file: the keys and free pages that it will find
// are the ones that were read.
package boltpages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"github.com/xdswal/xdswal/internal/event"
)

const (
	magic          = 0xED0CDAED
	version        = 2
	pageHeaderSize = 16
	elementSize    = 16
	bucketSize     = 16
	metaSize       = 64

	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagMeta       = 0x04
	flagFreelist   = 0x10
	flagLeafBucket = 0x01

	noFreelist = ^uint64(0)
	maxDepth   = 64
)

// Bucket is the header of a top-level bucket.
type Bucket struct {
	Name string
	// Sequence is the number set by bbolt's Bucket.SetSequence.
	Sequence uint64
	page     uint64
	inline   []byte
}

// File is an open bbolt file.
type File struct {
	path     string
	f        *os.File
	size     int64
	pageSize int64
	meta     meta
	buckets  []Bucket
	data     []byte // the pages in use
	seen     []bool // pages reached so far
}

type meta struct {
	root, freelist, highWater, txid uint64
}

// Open opens the file and checks its meta pages and its list of buckets. If the file is
// damaged, the error is [event.ErrCorrupt], and if its format is newer,
// [event.ErrVersion].
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open bbolt file: %w", err)
	}
	file := &File{path: path, f: f}
	if err := file.open(); err != nil {
		f.Close()
		return nil, err
	}
	return file, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Buckets returns the top-level buckets, sorted by name.
func (f *File) Buckets() []Bucket { return f.buckets }

// Walk calls fn with each pair of a bucket, in the order of the keys, and returns its
// error. The bucket must contain no buckets. Keys and values are parts of one copy of
// the file: a caller that keeps them clones them. A bucket can be walked only once,
// because no page may be read twice.
func (f *File) Walk(b Bucket, fn func(key, value []byte) error) error {
	w := walker{file: f, entry: "pair", fn: fn}
	if b.page != 0 {
		return w.visit(b.page, 0)
	}
	// A small bucket is a page without a number, in the leaf of its parent.
	if len(b.inline) < pageHeaderSize || !isInline(b.inline) {
		return f.corrupt(0, "inline page of a bucket is damaged")
	}
	return w.page(b.inline, 0, 0)
}

func isInline(page []byte) bool {
	return binary.LittleEndian.Uint64(page) == 0 && // number
		binary.LittleEndian.Uint16(page[8:]) == flagLeaf &&
		binary.LittleEndian.Uint32(page[12:]) == 0 // overflow
}

// CheckFreelist checks that no page is both free and part of the buckets that have been
// walked: bbolt would overwrite such a page. Call it after walking all buckets.
func (f *File) CheckFreelist() error {
	if f.meta.freelist == noFreelist {
		return nil
	}
	page, err := f.read(f.meta.freelist, flagFreelist)
	if err != nil {
		return err
	}
	count, ids := uint64(binary.LittleEndian.Uint16(page[10:])), page[pageHeaderSize:]
	if count == 0xFFFF {
		if len(ids) < 8 {
			return f.corrupt(f.meta.freelist, "freelist has no count")
		}
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return f.corrupt(f.meta.freelist, "freelist is longer than its page")
	}
	for i := range count {
		id := binary.LittleEndian.Uint64(ids[8*i:])
		if id < 2 || id >= f.meta.highWater || f.seen[id] {
			return f.corrupt(f.meta.freelist, fmt.Sprintf("freelist contains page %d, which is in use, named twice or out of bounds", id))
		}
		f.seen[id] = true
	}
	return nil
}

func (f *File) corrupt(page uint64, what string) error {
	return fmt.Errorf("%w: %s: page %d, offset %d: %s", event.ErrCorrupt, f.path, page, int64(page)*f.pageSize, what)
}

func (f *File) open() error {
	stat, err := f.f.Stat()
	if err != nil {
		return fmt.Errorf("stat bbolt file: %w", err)
	}
	f.size = stat.Size()
	if err := f.readMeta(); err != nil {
		return err
	}
	if err := f.load(); err != nil {
		return err
	}
	w := walker{file: f, flags: flagLeafBucket, entry: "bucket", fn: f.addBucket}
	return w.visit(f.meta.root, 0)
}

// readMeta reads the newer of the two meta pages. If it is damaged, bbolt would use the
// older one, and so lose the last commit without an error. A crash does not damage a
// meta page, because its content is in one sector.
func (f *File) readMeta() error {
	head := make([]byte, pageHeaderSize+metaSize)
	if _, err := f.f.ReadAt(head, 0); err != nil {
		return fmt.Errorf("%w: %s: no meta page: %w", event.ErrCorrupt, f.path, err)
	}
	f.pageSize = int64(binary.LittleEndian.Uint32(head[pageHeaderSize+8:]))
	if f.pageSize < 512 || f.pageSize > 1<<20 || f.pageSize&(f.pageSize-1) != 0 {
		return f.corrupt(0, fmt.Sprintf("got page size %d, want a power of two from 512 to 1 MiB", f.pageSize))
	}
	for id := range uint64(2) {
		m, err := f.parseMeta(id)
		if err != nil {
			return err
		}
		if m.txid >= f.meta.txid {
			f.meta = m
		}
	}
	if f.meta.highWater > uint64(f.size/f.pageSize) {
		return f.corrupt(0, fmt.Sprintf("file is truncated: got %d bytes, want %d pages of %d", f.size, f.meta.highWater, f.pageSize))
	}
	return nil
}

func (f *File) parseMeta(id uint64) (meta, error) {
	b := make([]byte, pageHeaderSize+metaSize)
	if _, err := f.f.ReadAt(b, int64(id)*f.pageSize); err != nil {
		return meta{}, f.corrupt(id, "no meta page")
	}
	if binary.LittleEndian.Uint64(b) != id || binary.LittleEndian.Uint16(b[8:]) != flagMeta {
		return meta{}, f.corrupt(id, "not a meta page")
	}
	b = b[pageHeaderSize:]
	sum := fnv.New64a()
	sum.Write(b[:56])
	if binary.LittleEndian.Uint32(b) != magic || binary.LittleEndian.Uint64(b[56:]) != sum.Sum64() {
		return meta{}, f.corrupt(id, "checksum of the meta page is wrong")
	}
	if v := binary.LittleEndian.Uint32(b[4:]); v != version {
		return meta{}, fmt.Errorf("%w: %s: got bbolt format %d, want %d", event.ErrVersion, f.path, v, version)
	}
	return meta{
		root:      binary.LittleEndian.Uint64(b[16:]),
		freelist:  binary.LittleEndian.Uint64(b[32:]),
		highWater: binary.LittleEndian.Uint64(b[40:]),
		txid:      binary.LittleEndian.Uint64(b[48:]),
	}, nil
}

func (f *File) addBucket(key, value []byte) error {
	if len(value) < bucketSize {
		return f.corrupt(f.meta.root, "header of a bucket is too short")
	}
	f.buckets = append(f.buckets, Bucket{
		Name:     string(key),
		page:     binary.LittleEndian.Uint64(value),
		Sequence: binary.LittleEndian.Uint64(value[8:]),
		inline:   value[bucketSize:],
	})
	return nil
}

// read returns a whole page, with its overflow, of one of the given kinds. The overflow
// pages must belong to no other page either: bbolt frees them with the page.
func (f *File) read(id uint64, kinds uint16) ([]byte, error) {
	if id < 2 || id >= f.meta.highWater {
		return nil, f.corrupt(id, "page number is out of bounds")
	}
	b := f.data[int64(id)*f.pageSize:]
	flags, overflow := binary.LittleEndian.Uint16(b[8:]), uint64(binary.LittleEndian.Uint32(b[12:]))
	if binary.LittleEndian.Uint64(b) != id || flags&kinds == 0 || flags&(flags-1) != 0 {
		return nil, f.corrupt(id, "page header is damaged")
	}
	if overflow >= f.meta.highWater-id {
		return nil, f.corrupt(id, "page exceeds the file")
	}
	for i := range overflow + 1 {
		if f.seen[id+i] {
			return nil, f.corrupt(id+i, "page is in use twice")
		}
		f.seen[id+i] = true
	}
	return b[:int64(overflow+1)*f.pageSize], nil
}

// load reads all pages in use at once, which is many times faster than one by one. It
// needs the memory of the whole file while that is open.
func (f *File) load() error {
	f.data = make([]byte, int64(f.meta.highWater)*f.pageSize)
	f.seen = make([]bool, f.meta.highWater)
	_, err := f.f.ReadAt(f.data, 0)
	if errors.Is(err, io.EOF) {
		return f.corrupt(0, "file is truncated")
	}
	if err != nil {
		return fmt.Errorf("read pages of %s: %w", f.path, err)
	}
	return nil
}

// walker visits the leaves below a page, from left to right.
type walker struct {
	file  *File
	flags uint32 // of each entry of a leaf
	entry string // what an entry with these flags is
	fn    func(key, value []byte) error
	last  []byte // the last key of a leaf
	next  []byte // the key of a branch for the page below, until that has been read
}

func (w *walker) visit(id uint64, depth int) error {
	page, err := w.file.read(id, flagBranch|flagLeaf)
	if err != nil {
		return err
	}
	return w.page(page, id, depth)
}

func (w *walker) page(page []byte, id uint64, depth int) error {
	if len(page) < pageHeaderSize || depth > maxDepth {
		return w.file.corrupt(id, "page is too short or too deep")
	}
	flags, count := binary.LittleEndian.Uint16(page[8:]), int(binary.LittleEndian.Uint16(page[10:]))
	if pageHeaderSize+count*elementSize > len(page) {
		return w.file.corrupt(id, "page has more elements than fit in it")
	}
	if count == 0 && (flags == flagBranch || depth > 0) {
		return w.file.corrupt(id, "page has no elements")
	}
	for i := range count {
		at := pageHeaderSize + i*elementSize
		var err error
		if flags == flagBranch {
			err = w.branch(page, at, id, depth)
		} else {
			err = w.leaf(page, at, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) branch(page []byte, at int, id uint64, depth int) error {
	e := page[at : at+elementSize]
	pos, ksize := uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:]))
	if uint64(at)+pos+ksize > uint64(len(page)) {
		return w.file.corrupt(id, "branch key exceeds the page")
	}
	key := page[uint64(at)+pos:][:ksize]
	if !w.inOrder(key) {
		return w.file.corrupt(id, "branch keys are out of order")
	}
	w.next = key
	return w.visit(binary.LittleEndian.Uint64(e[8:]), depth+1)
}

func (w *walker) leaf(page []byte, at int, id uint64) error {
	e := page[at : at+elementSize]
	flags, pos := binary.LittleEndian.Uint32(e), uint64(binary.LittleEndian.Uint32(e[4:]))
	ksize, vsize := uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
	start := uint64(at) + pos
	if start+ksize+vsize > uint64(len(page)) {
		return w.file.corrupt(id, "leaf entry exceeds the page")
	}
	key, value := page[start:start+ksize], page[start+ksize:start+ksize+vsize]
	if !w.inOrder(key) {
		return w.file.corrupt(id, "keys are out of order")
	}
	if flags != w.flags {
		return w.file.corrupt(id, "entry is not a "+w.entry)
	}
	w.last, w.next = key, nil
	return w.fn(key, value)
}

// inOrder reports whether key may be the next one: it must be larger than the one
// before, and the first key of a page must equal that of the branch above. bbolt
// searches by the keys of branches, and a put where they differ damages the tree.
func (w *walker) inOrder(key []byte) bool {
	if len(key) == 0 || w.next != nil && !bytes.Equal(w.next, key) {
		return false
	}
	return w.last == nil || bytes.Compare(w.last, key) < 0
}
