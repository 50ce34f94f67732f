package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

type vectorFile struct {
	Inclusion []struct {
		Index uint64   `json:"index"`
		Size  uint64   `json:"size"`
		Leaf  string   `json:"leaf_hash"`
		Root  string   `json:"root"`
		Proof []string `json:"proof"`
	} `json:"inclusion"`
	Consistency []struct {
		OldSize uint64   `json:"old_size"`
		NewSize uint64   `json:"new_size"`
		OldRoot string   `json:"old_root"`
		NewRoot string   `json:"new_root"`
		Proof   []string `json:"proof"`
	} `json:"consistency"`
}

// verdicts holds, case by case, what each implementation says; the test compares them with the vectors' own verdict.
type verdicts struct {
	MerkleInclusion   []bool `json:"merkle_inclusion"`
	MerkleConsistency []bool `json:"merkle_consistency"`
	TlogInclusion     []bool `json:"tlog_inclusion"`
	TlogConsistency   []bool `json:"tlog_consistency"`
}

func judgeVectors(path string) (*verdicts, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file vectorFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if len(file.Inclusion) == 0 || len(file.Consistency) == 0 {
		return nil, fmt.Errorf("%s has no cases", path)
	}
	var v verdicts
	for _, c := range file.Inclusion {
		leaf, root, hashes, err := decode(c.Leaf, c.Root, c.Proof)
		if err != nil {
			return nil, err
		}
		ok := proof.VerifyInclusion(rfc6962.DefaultHasher, c.Index, c.Size, leaf, hashes, root) == nil
		v.MerkleInclusion = append(v.MerkleInclusion, ok)
		ok = tlog.CheckRecord(tlog.RecordProof(fixed(hashes)), int64(c.Size), tlog.Hash(root), int64(c.Index), tlog.Hash(leaf)) == nil
		v.TlogInclusion = append(v.TlogInclusion, ok)
	}
	for _, c := range file.Consistency {
		oldRoot, newRoot, hashes, err := decode(c.OldRoot, c.NewRoot, c.Proof)
		if err != nil {
			return nil, err
		}
		ok := proof.VerifyConsistency(rfc6962.DefaultHasher, c.OldSize, c.NewSize, hashes, oldRoot, newRoot) == nil
		v.MerkleConsistency = append(v.MerkleConsistency, ok)
		ok = tlog.CheckTree(tlog.TreeProof(fixed(hashes)), int64(c.NewSize), tlog.Hash(newRoot), int64(c.OldSize), tlog.Hash(oldRoot)) == nil
		v.TlogConsistency = append(v.TlogConsistency, ok)
	}
	return &v, nil
}

func decode(a, b string, proof []string) ([]byte, []byte, [][]byte, error) {
	var out [][]byte
	for _, text := range append([]string{a, b}, proof...) {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != tlog.HashSize {
			return nil, nil, nil, fmt.Errorf("not a hash: %q", text)
		}
		out = append(out, raw)
	}
	return out[0], out[1], out[2:], nil
}

func fixed(hashes [][]byte) []tlog.Hash {
	var out []tlog.Hash
	for _, h := range hashes {
		out = append(out, tlog.Hash(h))
	}
	return out
}
