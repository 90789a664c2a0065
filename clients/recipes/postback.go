// Sends one postback.  Go 1.18 or later, the standard library alone.
//
//	POSTBACK_URL=https://track.example.com/p/KEY go run postback.go click_id=0saq... txid=A-1001 type=sale value=12.50
//
// Or copy all but main into a package of yours.  Call SendPostback when the order is stored, and do not let the buyer
// wait for it.  With POSTBACK_SECRET (pbs_...) the request is signed.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// ErrTryLater: the tracker could not be reached.  Send the same postback, with the same txid, again later.
var ErrTryLater = errors.New("send the same postback, with the same txid, again later")

// ErrRefused: the tracker will not count it however often it is sent.
var ErrRefused = errors.New("refused")

// Certificates are verified by default; redirects are not followed.
var client = &http.Client{
	Timeout:   2 * time.Second,
	Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext},
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	},
}

func encode(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

// canonicalQuery is what is signed: parameters decoded, encoded alike, sorted by name and value.
func canonicalQuery(query string) string {
	var pairs [][2]string
	for _, pair := range strings.Split(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, _ = url.QueryUnescape(name)
		value, _ = url.QueryUnescape(value)
		if pair != "" && name != "sig" && name != "sig_time" {
			pairs = append(pairs, [2]string{encode(name), encode(value)})
		}
	}
	sort.Slice(pairs, func(i, j int) bool {
		if pairs[i][0] != pairs[j][0] {
			return pairs[i][0] < pairs[j][0]
		}
		return pairs[i][1] < pairs[j][1]
	})
	written := make([]string, len(pairs))
	for i, pair := range pairs {
		written[i] = pair[0] + "=" + pair[1]
	}
	return strings.Join(written, "&")
}

// Sign is the signature of a request, in hex.
func Sign(secret, method, path, query, body, at string) string {
	bodyHash := sha256.Sum256([]byte(body))
	lines := []string{"postbackd-v1", method, path, canonicalQuery(query), hex.EncodeToString(bodyHash[:]), at}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

func ask(ctx context.Context, target *url.URL, secret string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	if secret != "" {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		signature := Sign(secret, "GET", target.EscapedPath(), target.RawQuery, "", now)
		request.Header.Set("X-Postback-Signature", "t="+now+",v1="+signature)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	return answer, answer.Body.Close() // the headers say everything
}

// SendPostback sends up to three times and returns the verdict.  postback: click_id, txid, type, value, currency ...
func SendPostback(ctx context.Context, address string, postback map[string]string, secret string) (string, error) {
	if postback["txid"] == "" {
		return "", fmt.Errorf("%w: give a txid: without one a retry cannot be told from a second sale", ErrRefused)
	}
	target, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	pairs := strings.FieldsFunc(target.RawQuery, func(c rune) bool { return c == '&' })
	for name, value := range postback {
		pairs = append(pairs, encode(name)+"="+encode(value))
	}
	target.RawQuery = strings.Join(pairs, "&")
	for try := 1; ; try++ {
		pause := time.Second << (try - 1)
		answer, err := ask(ctx, target, secret)
		if err == nil {
			if answer.StatusCode < 500 && answer.StatusCode != 408 && answer.StatusCode != 429 {
				return readVerdict(answer)
			}
			err = errors.New(answer.Status)
			if seconds, e := strconv.Atoi(answer.Header.Get("Retry-After")); e == nil && seconds <= 10 {
				pause = time.Duration(seconds) * time.Second
			}
		}
		if try == 3 {
			return "", fmt.Errorf("%v: %w", withoutAddress(err), ErrTryLater)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%v: %w", ctx.Err(), ErrTryLater)
		case <-time.After(pause):
		}
	}
}

// withoutAddress takes away the URL, which is a secret, from an error of the client.
func withoutAddress(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

func readVerdict(answer *http.Response) (string, error) {
	verdict := answer.Header.Get("Postbackd-Verdict")
	switch {
	case answer.StatusCode == 404:
		return "", fmt.Errorf("%w: 404: the tracker does not know this URL, or the signature is wrong: "+
			"compare both with 'postbackd network list'", ErrRefused)
	case verdict == "rejected" || verdict == "unmatched":
		reason := answer.Header.Get("Postbackd-Reason")
		return "", fmt.Errorf("%w: %s: %s (see the network's log: postbackd log)", ErrRefused, verdict, reason)
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return "", fmt.Errorf("%w: %s: this is not the address of a tracker: look at POSTBACK_URL", ErrRefused, answer.Status)
	case verdict == "":
		return "delivered", nil // other trackers name no verdict
	}
	return verdict, nil // accepted, duplicate, updated, held, queued
}

func main() {
	postback := map[string]string{}
	for _, word := range os.Args[1:] {
		name, value, _ := strings.Cut(word, "=")
		postback[name] = value
	}
	verdict, err := SendPostback(context.Background(), os.Getenv("POSTBACK_URL"), postback, os.Getenv("POSTBACK_SECRET"))
	switch {
	case errors.Is(err, ErrTryLater):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(75)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(verdict)
}
