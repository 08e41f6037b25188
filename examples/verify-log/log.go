package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8           // of a tile, which is why it holds 256 hashes
	width  = 1 << height // of a full tile, and of a full bundle of entries
	// A bundle's entries are at most 65,535 bytes each, behind two bytes that say how many.
	largest = width * (2 + 1<<16)
)

var client = http.Client{Timeout: 30 * time.Second}

// checkLog checks the log at an address as it is now, and that it still begins with every earlier tree. The entries of a
// tree that was followed were checked when it was new: as it is unchanged, only those behind it are read.
func checkLog(log string, trusted note.Verifiers, earlier []signedTree, followed int64) (signedTree, error) {
	signed, err := get(log, "checkpoint")
	if err != nil {
		return signedTree{}, err
	}
	current, err := open(signed, trusted, log+"/checkpoint")
	if err != nil {
		return current, err
	}
	fmt.Printf("signature: %s signed a tree of %d entries\n", current.origin, current.N)
	// Whatever hash this reader gives was first hashed up to the signed root.
	hashes := tlog.TileHashReader(current.Tree, &tiles{log, map[tlog.Tile][]byte{}})
	for _, each := range earlier {
		if err := checkHistory(each, current, hashes); err != nil {
			return current, err
		}
	}
	return current, checkEntries(log, followed, current.Tree, hashes)
}

// checkHistory proves that the earlier tree is the beginning of the current one: nothing in it was changed or removed.
func checkHistory(earlier, current signedTree, hashes tlog.HashReader) error {
	if earlier.origin != current.origin {
		return fmt.Errorf("%s is of another log, %s", earlier.from, earlier.origin)
	}
	if earlier.N > current.N {
		return fmt.Errorf("%s has %d entries, and the log has %d: it has lost some, or this is an old copy of it",
			earlier.from, earlier.N, current.N)
	}
	if earlier.N == 0 {
		return nil // every tree begins with the empty one
	}
	proof, err := tlog.ProveTree(current.N, earlier.N, hashes)
	if err != nil {
		return fmt.Errorf("tiles: %w", err)
	}
	if err := tlog.CheckTree(proof, current.N, current.Hash, earlier.N, earlier.Hash); err != nil {
		return fmt.Errorf("the log signed two histories: %s is not the beginning of the log: %w\n"+
			"Keep both, they are the evidence. The other is:\n%s", earlier.from, err, current.note)
	}
	fmt.Printf("history:   it begins with the tree of %d entries in %s\n", earlier.N, earlier.from)
	return nil
}

// checkEntries reads the log's entries, from a bundle on, and proves each to be in the tree, in its place.
func checkEntries(log string, from int64, tree tlog.Tree, hashes tlog.HashReader) error {
	if tree.N == 0 {
		if empty, _ := tlog.TreeHash(0, hashes); tree.Hash != empty {
			return errors.New("a tree of no entries has another root")
		}
	}
	start := from / width * width
	for first := start; first < tree.N; first += width {
		count := min(width, tree.N-first)
		entries, err := bundle(log, first/width, int(count))
		if err != nil {
			return err
		}
		near, err := remember(hashes, first, count)
		if err != nil {
			return fmt.Errorf("tiles: %w", err)
		}
		for at, entry := range entries {
			if err := checkEntry(entry, first+int64(at), tree, near); err != nil {
				return err
			}
		}
	}
	if start == 0 {
		fmt.Printf("entries:   all %d are in the tree\n", tree.N)
	} else {
		fmt.Printf("entries:   all from %d on are in the tree; those before were not read again\n", start)
	}
	return nil
}

func checkEntry(entry []byte, index int64, tree tlog.Tree, hashes tlog.HashReader) error {
	proof, err := tlog.ProveRecord(tree.N, index, hashes)
	if err != nil {
		return fmt.Errorf("tiles: %w", err)
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return fmt.Errorf("entry %d is not the one in the tree: %w", index, err)
	}
	return nil
}

// remember reads the hashes over some neighbouring entries at once and keeps them, and what else is asked for: their paths
// have most hashes in common, and a reader of tiles hashes whole tiles each time that it is asked.
func remember(reader tlog.HashReader, first, count int64) (tlog.HashReader, error) {
	known := map[int64]tlog.Hash{}
	learn := func(indexes []int64) error {
		hashes, err := reader.ReadHashes(indexes)
		for i := range hashes {
			known[indexes[i]] = hashes[i]
		}
		return err
	}
	var over []int64
	for level := 0; level <= height; level++ {
		for n := first >> level; n < (first+count)>>level; n++ {
			over = append(over, tlog.StoredHashIndex(level, n))
		}
	}
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var missing []int64
		for _, index := range indexes {
			if _, ok := known[index]; !ok {
				missing = append(missing, index)
			}
		}
		if len(missing) > 0 {
			if err := learn(missing); err != nil {
				return nil, err
			}
		}
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = known[index]
		}
		return found, nil
	}), learn(over)
}

// bundle fetches up to 256 entries, each of which stands behind its length.
func bundle(log string, n int64, count int) ([][]byte, error) {
	name := path(tlog.Tile{H: height, L: -1, N: n, W: count})
	raw, err := get(log, name)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(raw) >= 2 && len(raw) >= 2+int(binary.BigEndian.Uint16(raw)) {
		end := 2 + int(binary.BigEndian.Uint16(raw))
		entries = append(entries, raw[2:end])
		raw = raw[end:]
	}
	if len(raw) != 0 || len(entries) != count {
		return nil, fmt.Errorf("%s does not hold %d entries", name, count)
	}
	return entries, nil
}

// tiles reads the log's tiles. They are trusted, and kept, only once TileHashReader says that they fit the signed root.
type tiles struct {
	log  string
	kept map[tlog.Tile][]byte
}

func (t *tiles) Height() int { return height }

// ReadTiles asks for each tile as wide as the signed tree has it: a Parley log serves those also after it has grown.
func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(wanted))
	for i, tile := range wanted {
		found[i] = t.kept[tile]
		if found[i] == nil {
			raw, err := get(t.log, path(tile))
			if err != nil {
				return nil, err
			}
			found[i] = raw
		}
	}
	return found, nil
}

// SaveTiles keeps what many paths have in common: full tiles of the lowest level are each asked for once.
func (t *tiles) SaveTiles(checked []tlog.Tile, data [][]byte) {
	for i, tile := range checked {
		if tile.L > 0 || tile.W < width {
			t.kept[tile] = data[i]
		}
	}
}

// path is where C2SP puts a tile: as Go's database does, but without the height, and with entries in place of data.
func path(tile tlog.Tile) string {
	rest := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
	if number, ok := strings.CutPrefix(rest, "data/"); ok {
		rest = "entries/" + number
	}
	return "tile/" + rest
}

func get(log, name string) ([]byte, error) {
	answer, err := client.Get(log + "/" + name)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/%s: %s", log, name, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, largest))
}

// readSaved reads the checkpoint that an earlier run saved: none the first time.
func readSaved(file string, trusted note.Verifiers) ([]signedTree, error) {
	signed, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Printf("history:   nothing to compare with, %s is not there yet\n", file)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tree, err := open(signed, trusted, file)
	return []signedTree{tree}, err
}

// save keeps a checkpoint for the next run. The old one is replaced whole or not at all.
func save(file string, tree signedTree) error {
	next := file + ".new"
	if err := os.WriteFile(next, tree.note, 0o644); err != nil {
		return err
	}
	return os.Rename(next, file)
}
