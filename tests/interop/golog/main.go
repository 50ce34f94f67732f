// Command golog checks what careledger writes with Go's own transparency log packages, unchanged.
//
//	golog log FOLDER VKEYFILE [EVERY]   a C2SP tile folder: root, tiles, record proofs, consistency (golang.org/x/mod)
//	golog proof VKEYFILE PROOF LEAF [WITNESSVKEYS]  a tlog-proof over a leaf file (filippo.io/torchwood)
//	golog vectors FILE                  verdicts on vectors/tlog/proofs.json (transparency-dev/merkle and x/mod)
//
// Exit status 0 and one line of JSON on stdout if everything holds; 1 and one line on stderr if not.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

func main() {
	result, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "golog:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(1)
	}
}

func run(args []string) (any, error) {
	switch {
	case len(args) >= 3 && args[0] == "log":
		every := int64(1)
		if len(args) == 4 {
			n, err := strconv.ParseInt(args[3], 10, 64)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("EVERY is not a positive number: %q", args[3])
			}
			every = n
		}
		return checkLog(args[1], args[2], every)
	case len(args) >= 4 && args[0] == "proof":
		return checkProof(args[1], args[2], args[3], args[4:])
	case len(args) == 2 && args[0] == "vectors":
		return judgeVectors(args[1])
	}
	return nil, fmt.Errorf("usage: golog log|proof|vectors ...")
}
