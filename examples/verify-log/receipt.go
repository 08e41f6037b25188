package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// An opening is the parties' own file: what the entry commits to, and the way from there to the entry.
type opening struct {
	Version     int
	Salt        []byte
	Detail      json.RawMessage // the bytes as they stand in the file, since it is they that were hashed
	Index, Size int64
	Proof       tlog.RecordProof
}

// checkReceipt checks three files of a receipt. The fourth, its policy, is passed over: whom to trust is for the user
// to say, not for a receipt.
func checkReceipt(directory string, trusted note.Verifiers) (signedTree, error) {
	var files [3][]byte
	for i, name := range []string{"receipt.tlog-proof", "entry.bin", "opening.json"} {
		raw, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return signedTree{}, err
		}
		files[i] = raw
	}
	proof, entry, opened := files[0], files[1], files[2]
	index, tree, err := checkProof(proof, entry, trusted)
	if err != nil {
		return tree, err
	}
	detail, err := checkOpening(opened, entry)
	if err != nil {
		return tree, err
	}
	fmt.Printf("receipt:   entry %d of the tree of %d in %s commits to\n           %s\n", index, tree.N, tree.origin, detail)
	return tree, nil
}

// checkProof checks a file in the format tlog-proof: a signed tree holds the entry at the index.
func checkProof(raw, entry []byte, trusted note.Verifiers) (int64, signedTree, error) {
	head, signed, _ := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		return 0, signedTree{}, errors.New("receipt.tlog-proof is not a proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return 0, signedTree{}, fmt.Errorf("receipt.tlog-proof: %w", err)
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, signedTree{}, fmt.Errorf("receipt.tlog-proof: %w", err)
		}
		path = append(path, hash)
	}
	tree, err := open(signed, trusted, "receipt.tlog-proof")
	if err != nil {
		return 0, tree, err
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return 0, tree, fmt.Errorf("the signed tree does not hold the entry at %d: %w", index, err)
	}
	return index, tree, nil
}

// checkOpening checks that the entry commits to the opening's detail, and gives the detail.
func checkOpening(raw, entry []byte) (string, error) {
	var opened opening
	if err := json.Unmarshal(raw, &opened); err != nil {
		return "", fmt.Errorf("opening.json: %w", err)
	}
	// The salt's length is fixed, or its end could be read as the beginning of another detail.
	if opened.Version != 1 || len(opened.Salt) != sha256.Size || len(entry) != 1+sha256.Size || entry[0] != 1 {
		return "", errors.New("opening.json and entry.bin are not of version 1")
	}
	if opened.Size > most {
		return "", errors.New("opening.json names a tree of a size that can't be")
	}
	commitment := sha256.Sum256(append(opened.Salt, opened.Detail...))
	// An entry is the root of a small tree of its own, whose leaves are commitments.
	root := tlog.Hash(entry[1:])
	if err := tlog.CheckRecord(opened.Proof, opened.Size, root, opened.Index, tlog.RecordHash(commitment[:])); err != nil {
		return "", fmt.Errorf("opening.json does not open the entry: %w", err)
	}
	return string(opened.Detail), nil
}
