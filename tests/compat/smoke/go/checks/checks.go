// Package checks is what the Go smoke programs share: the records they send, and a tally that prints one line per check.
//
// A program prints `CLIENT/CHECK,PASS` or `CLIENT/CHECK,FAIL` for each check and `CLIENT: N passed, N failed` at the end.
package checks

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"time"
)

// Partitions of the topic each program creates.
const Partitions = 3

// Header is one record header; a name may come twice.
type Header struct {
	Name  string
	Value []byte
}

// Record is what is sent, and what must come back. A nil key or value is Kafka's null.
type Record struct {
	Key, Value []byte
	Headers    []Header
}

// Records to send: repeated header names, a null key, a null value, empty ones, then enough to compress.
func Records() []Record {
	records := []Record{
		{[]byte("key"), []byte("value"), []Header{{"h", []byte("first")}, {"other", []byte{}}, {"h", []byte("second")}}},
		{nil, []byte("null key"), nil},
		{[]byte("null value"), nil, []Header{{"h", []byte("only")}}},
		{[]byte{}, []byte{}, nil},
	}
	for n := range 16 {
		bulk := []byte(strings.Repeat("silt and stone ", 70))
		records = append(records, Record{fmt.Appendf(nil, "bulk-%d", n), bulk, []Header{{"n", fmt.Appendf(nil, "%d", n)}}})
	}
	return records
}

// Same says how two lists of records differ, if they do.
func Same(got, wanted []Record) error {
	if len(got) != len(wanted) {
		return fmt.Errorf("got %d records, wanted %d", len(got), len(wanted))
	}
	for i := range got {
		g, w := got[i], wanted[i]
		headers := len(g.Headers) == len(w.Headers)
		for h := 0; headers && h < len(g.Headers); h++ {
			headers = g.Headers[h].Name == w.Headers[h].Name && bytes.Equal(g.Headers[h].Value, w.Headers[h].Value)
		}
		nulls := (g.Key == nil) == (w.Key == nil) && (g.Value == nil) == (w.Value == nil)
		if !headers || !nulls || !bytes.Equal(g.Key, w.Key) || !bytes.Equal(g.Value, w.Value) {
			return fmt.Errorf("record %d: got %.300v, wanted %.300v", i, g, w)
		}
	}
	return nil
}

// Equal is an error unless both are the same.
func Equal[T comparable](what string, got, wanted T) error {
	if got != wanted {
		return fmt.Errorf("%s: got %v, wanted %v", what, got, wanted)
	}
	return nil
}

// Eventually waits for a condition: a Kafka cluster shows new and deleted topics a moment later.
func Eventually(what string, condition func() (bool, error)) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		ok, err := condition()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within 10 s: %s (%v)", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Tally counts named checks.
type Tally struct {
	client         string
	passed, failed int
	Topic, Group   string
}

// New starts a tally, with a topic and a group name nobody else uses.
func New(client string) *Tally {
	topic := fmt.Sprintf("smoke-%s-%s", client, rand.Text()[:8])
	return &Tally{client: client, Topic: topic, Group: topic + "-group"}
}

// Check runs one named check; the program goes on after a failure so that one run shows every defect.
func (t *Tally) Check(name string, body func() error) {
	if err := body(); err != nil {
		t.failed++
		fmt.Fprintf(os.Stderr, "%s/%s: %v\n", t.client, name, err)
		fmt.Printf("%s/%s,FAIL\n", t.client, name)
		return
	}
	t.passed++
	fmt.Printf("%s/%s,PASS\n", t.client, name)
}

// Finish prints the closing line and ends the program.
func (t *Tally) Finish() {
	fmt.Printf("%s: %d passed, %d failed\n", t.client, t.passed, t.failed)
	if t.failed > 0 {
		os.Exit(1)
	}
}
