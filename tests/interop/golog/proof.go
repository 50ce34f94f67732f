package main

import (
	"os"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type proofResult struct {
	Verified bool `json:"verified"`
}

// checkProof verifies a tlog-proof; every witness key that is given must have cosigned its checkpoint.
func checkProof(vkeyFile, proofFile, leafFile string, witnessKeys []string) (*proofResult, error) {
	vkey, err := os.ReadFile(vkeyFile)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return nil, err
	}
	policies := []torchwood.Policy{torchwood.SingleVerifierPolicy(verifier), torchwood.OriginPolicy(verifier.Name())}
	for _, key := range witnessKeys {
		witness, err := torchwood.NewCosignatureVerifier(key)
		if err != nil {
			return nil, err
		}
		policies = append(policies, torchwood.SingleVerifierPolicy(witness))
	}
	proof, err := os.ReadFile(proofFile)
	if err != nil {
		return nil, err
	}
	leaf, err := os.ReadFile(leafFile)
	if err != nil {
		return nil, err
	}
	policy := torchwood.ThresholdPolicy(len(policies), policies...)
	if err := torchwood.VerifyProof(policy, tlog.RecordHash(leaf), proof); err != nil {
		return nil, err
	}
	return &proofResult{Verified: true}, nil
}
