package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// folder serves a C2SP tile folder to tlog's TileHashReader. The hashes and coordinates are the same; only the
// path differs, which in C2SP doesn't name the height.
type folder struct{ root string }

func (f folder) Height() int { return tileHeight }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(filepath.Join(f.root, tilePath(t)))
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func tilePath(t tlog.Tile) string {
	return strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
}

func entriesPath(bundle int64, width int) string {
	t := tlog.Tile{H: tileHeight, L: 0, N: bundle, W: width}
	return strings.Replace(tilePath(t), "tile/0/", "tile/entries/", 1)
}

type logResult struct {
	Size        int64 `json:"size"`
	Entries     int64 `json:"entries"`
	Records     int64 `json:"record_proofs"`
	Consistency int64 `json:"consistency_proofs"`
}

func checkLog(root, vkeyFile string, every int64) (*logResult, error) {
	tree, err := openCheckpoint(filepath.Join(root, "checkpoint"), vkeyFile)
	if err != nil {
		return nil, err
	}
	reader := tlog.TileHashReader(tree, folder{root})
	result := &logResult{Size: tree.N}
	if tree.N == 0 {
		return result, nil
	}
	got, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return nil, err
	}
	if got != tree.Hash {
		return nil, fmt.Errorf("tiles lead to root %v, the checkpoint says %v", got, tree.Hash)
	}
	leaves, err := checkEntries(root, tree, reader)
	if err != nil {
		return nil, err
	}
	result.Entries = int64(len(leaves))
	for i := int64(0); i < tree.N; i += every {
		proof, err := tlog.ProveRecord(tree.N, i, reader)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, i, leaves[i]); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		result.Records++
	}
	for _, old := range oldSizes(tree.N) {
		oldHash, err := tlog.TreeHash(old, reader)
		if err != nil {
			return nil, fmt.Errorf("root at %d: %w", old, err)
		}
		proof, err := tlog.ProveTree(tree.N, old, reader)
		if err != nil {
			return nil, fmt.Errorf("consistency from %d: %w", old, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old, oldHash); err != nil {
			return nil, fmt.Errorf("consistency from %d: %w", old, err)
		}
		result.Consistency++
	}
	return result, nil
}

func openCheckpoint(path, vkeyFile string) (tlog.Tree, error) {
	vkey, err := os.ReadFile(vkeyFile)
	if err != nil {
		return tlog.Tree{}, err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return tlog.Tree{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	return parseCheckpoint(opened.Text, verifier.Name())
}

// parseCheckpoint reads the first three lines; tlog.ParseTree wants the checksum database's own first line.
func parseCheckpoint(text, origin string) (tlog.Tree, error) {
	first, rest, ok := strings.Cut(text, "\n")
	if !ok || first != origin {
		return tlog.Tree{}, fmt.Errorf("origin %q, not %q", first, origin)
	}
	return tlog.ParseTree([]byte("go.sum database tree\n" + rest))
}

// checkEntries hashes every entry and compares it with the leaf hash that the tiles prove.
func checkEntries(root string, tree tlog.Tree, reader tlog.HashReader) ([]tlog.Hash, error) {
	var leaves []tlog.Hash
	for bundle := int64(0); bundle<<tileHeight < tree.N; bundle++ {
		width := int(min(1<<tileHeight, tree.N-bundle<<tileHeight))
		data, err := os.ReadFile(filepath.Join(root, entriesPath(bundle, width)))
		if err != nil {
			return nil, err
		}
		var indexes []int64
		for range width {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return nil, fmt.Errorf("bundle %d ends early", bundle)
			}
			length := 2 + int(binary.BigEndian.Uint16(data))
			indexes = append(indexes, tlog.StoredHashIndex(0, int64(len(leaves))))
			leaves = append(leaves, tlog.RecordHash(data[2:length]))
			data = data[length:]
		}
		if len(data) != 0 {
			return nil, fmt.Errorf("bundle %d has bytes after its last entry", bundle)
		}
		proven, err := reader.ReadHashes(indexes)
		if err != nil {
			return nil, err
		}
		first := len(leaves) - width
		for i, hash := range proven {
			if leaves[first+i] != hash {
				return nil, fmt.Errorf("entry %d does not hash to its leaf", first+i)
			}
		}
	}
	if int64(len(leaves)) != tree.N {
		return nil, errors.New("another number of entries than the checkpoint says")
	}
	return leaves, nil
}

// oldSizes are the sizes where tiles begin and end, powers of two, and a spread in between.
func oldSizes(n int64) []int64 {
	seen := map[int64]bool{}
	var sizes []int64
	add := func(s int64) {
		if s >= 1 && s <= n && !seen[s] {
			seen[s] = true
			sizes = append(sizes, s)
		}
	}
	for p := int64(1); p <= n; p *= 2 {
		add(p - 1)
		add(p)
		add(p + 1)
	}
	for i := int64(1); i <= 64; i++ {
		add(n * i / 64)
		add((n >> tileHeight) * i / 64 << tileHeight)
	}
	return sizes
}
