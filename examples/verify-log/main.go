// Verify-log checks a Parley log, and receipts from it, with nothing of Parley's.
//
//	verify-log -policy policy.txt -saved checkpoint.txt http://127.0.0.1:7401
//	verify-log -policy policy.txt -receipt RECEIPT [http://127.0.0.1:7401]
//
// It stands on the two packages with which Go checks its own database of modules: sumdb/note opens what the log
// signed, sumdb/tlog does the arithmetic of trees. The formats are those of c2sp.org (signed-note, tlog-checkpoint,
// tlog-tiles, tlog-proof, tlog-policy). The exit code is 0 if all that was asked for holds, else 1.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type options struct {
	policy, key, saved, receipt, log string
}

func main() {
	asked, err := parse(os.Args[1:])
	if err == nil {
		err = run(asked)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "verify-log:", err)
		os.Exit(1)
	}
}

func parse(args []string) (asked options, err error) {
	flags := flag.NewFlagSet("verify-log [flags] [the log's address]", flag.ContinueOnError)
	flags.StringVar(&asked.policy, "policy", "", "`file` with the policy that you trust")
	flags.StringVar(&asked.key, "key", "", "the log's public `key` (name+id+base64), if you have no policy")
	flags.StringVar(&asked.saved, "saved", "", "`file` with the checkpoint up to which you checked last; the new one is written to it")
	flags.StringVar(&asked.receipt, "receipt", "", "`directory` with a receipt to check")
	if err = flags.Parse(args); err != nil {
		return asked, err
	}
	asked.log = strings.TrimSuffix(flags.Arg(0), "/")
	switch {
	case flags.NArg() > 1:
		err = errors.New("one address at a time, and after the flags")
	case (asked.policy == "") == (asked.key == ""):
		err = errors.New("say whom you trust: -policy or -key")
	case asked.log == "" && asked.saved != "":
		err = errors.New("-saved needs the log's address")
	case asked.log == "" && asked.receipt == "":
		err = errors.New("nothing to check: give the log's address, or -receipt, or both")
	}
	return asked, err
}

func run(asked options) error {
	trusted, err := trustedKeys(asked)
	if err != nil {
		return err
	}
	var earlier []signedTree // what somebody was shown before: the log must still begin with it
	if asked.receipt != "" {
		shown, err := checkReceipt(asked.receipt, trusted)
		if err != nil {
			return fmt.Errorf("receipt: %w", err)
		}
		earlier = append(earlier, shown)
	}
	if asked.log == "" {
		return nil
	}
	var followed int64
	if asked.saved != "" {
		shown, err := readSaved(asked.saved, trusted)
		if err != nil {
			return err
		}
		for _, each := range shown {
			followed = each.N
		}
		earlier = append(earlier, shown...)
	}
	current, err := checkLog(asked.log, trusted, earlier, followed)
	if err != nil || asked.saved == "" {
		return err
	}
	return save(asked.saved, current)
}

// trustedKeys answers with the keys of the logs that the user believes.
func trustedKeys(asked options) (note.Verifiers, error) {
	vkeys := []string{asked.key}
	if asked.policy != "" {
		raw, err := os.ReadFile(asked.policy)
		if err != nil {
			return nil, err
		}
		if vkeys, err = policyKeys(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", asked.policy, err)
		}
	}
	var keys []note.Verifier
	for _, vkey := range vkeys {
		key, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return note.VerifierList(keys...), nil
}

// policyKeys reads the logs' keys out of a policy, whose last line is the hash of all that comes before it.
func policyKeys(raw []byte) ([]string, error) {
	end := bytes.LastIndexByte(bytes.TrimSuffix(raw, []byte("\n")), '\n') + 1
	body, seal := raw[:end], string(raw[end:])
	if seal != fmt.Sprintf("# sha256 %x\n", sha256.Sum256(body)) {
		return nil, errors.New("the last line is not the hash of the others: the policy was cut or changed")
	}
	var vkeys []string
	for line := range strings.Lines(string(body)) {
		switch words := strings.Fields(line); {
		case len(words) >= 2 && words[0] == "log":
			vkeys = append(vkeys, words[1])
		case len(words) == 2 && words[0] == "quorum" && words[1] != "none":
			// Passing over what the policy asks for would be worse than not checking at all.
			return nil, errors.New("the policy asks for witnesses, whose signatures this program can't check")
		}
	}
	return vkeys, nil
}

// Trees of more entries than this are refused: there are none, and tlog's search for a power of two would not end.
const most = 1 << 62

// A signedTree is a tree as the log signed it, with the signed text itself, which is evidence.
type signedTree struct {
	tlog.Tree
	origin string
	note   []byte
	from   string
}

// open checks a checkpoint's signature and reads it: the log's name, the number of entries, the root over them.
func open(signed []byte, trusted note.Verifiers, from string) (signedTree, error) {
	opened, err := note.Open(signed, trusted)
	if err != nil {
		return signedTree{}, fmt.Errorf("%s: no log that you trust signed this checkpoint: %w", from, err)
	}
	origin, rest, _ := strings.Cut(opened.Text, "\n")
	named := false
	for _, signature := range opened.Sigs {
		named = named || signature.Name == origin
	}
	if !named {
		return signedTree{}, fmt.Errorf("%s: a log signed a checkpoint that is called %q", from, origin)
	}
	// ParseTree reads size and root of any log, but wants to see the name of Go's own.
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + rest))
	if err != nil || tree.N > most {
		return signedTree{}, fmt.Errorf("%s: this is not a checkpoint", from)
	}
	return signedTree{tree, origin, signed, from}, nil
}
