package parts_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/matrix-org/dendrite/common/test/parts"
)

const envGive = "DENDRITE_TEST_GIVE_PORTS"

// TestNoPortIsGivenTwice: two processes that ask for ports side by side get 1,000 different ones.
func TestNoPortIsGivenTwice(t *testing.T) {
	const each = 500
	if os.Getenv(envGive) != "" {
		for range each {
			port, err := parts.FreePort()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("port", port)
		}
		fmt.Println("given")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // lives on until it is told to end
		return
	}
	given := make(map[string]int)
	other := exec.Command(os.Args[0], "-test.run", "^TestNoPortIsGivenTwice$")
	other.Env = append(os.Environ(), envGive+"=1")
	hold, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "given" {
		var port string
		if _, err := fmt.Sscanf(lines.Text(), "port %s", &port); err == nil {
			given[port]++
		}
		// It is at work now: both ask side by side from here on.
		if port, err := parts.FreePort(); err != nil {
			t.Error(err)
		} else {
			given[port]++
		}
	}
	if len(given) < 2*each {
		t.Errorf("%d different ports were given, want at least %d", len(given), 2*each)
	}
	for port, times := range given {
		if times > 1 {
			t.Errorf("port %s was given %d times", port, times)
		}
	}
	if err := hold.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}
