package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// The Workload API client takes its address from SPIFFE_ENDPOINT_SOCKET, as any workload does.
func workloadID(t *testing.T) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.FromString(setting(t, "VOUCHSAFE_WORKLOAD_ID"))
	must(t, err, "workload ID")
	setting(t, "SPIFFE_ENDPOINT_SOCKET")
	return id
}

func TestWorkloadFetchesAnSVIDThatItsBundleVerifies(t *testing.T) {
	want := workloadID(t)

	fetched, err := workloadapi.FetchX509Context(limited(t))

	must(t, err, "FetchX509Context")
	svid := fetched.DefaultSVID()
	if svid.ID != want {
		t.Fatalf("SVID is for %s, want %s", svid.ID, want)
	}
	id, _, err := x509svid.Verify(svid.Certificates, fetched.Bundles)
	must(t, err, "verify")
	if id != want {
		t.Fatalf("the chain is for %s", id)
	}
	bundles, err := workloadapi.FetchX509Bundles(limited(t))
	must(t, err, "FetchX509Bundles")
	if !bundles.Has(want.TrustDomain()) {
		t.Fatalf("no bundle of %s", want.TrustDomain())
	}
}

type watcher struct {
	updates chan *workloadapi.X509Context
	errors  chan error
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) { w.updates <- update }
func (w *watcher) OnX509ContextWatchError(err error)                   { w.errors <- err }

func TestWorkloadWatchSeesARotationAndNoError(t *testing.T) {
	workloadID(t)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	watch := &watcher{updates: make(chan *workloadapi.X509Context, 16), errors: make(chan error, 16)}
	go func() {
		if err := workloadapi.WatchX509Context(ctx, watch); err != nil && ctx.Err() == nil {
			watch.errors <- err
		}
	}()

	serials := map[string]bool{}
	for len(serials) < 3 {
		select {
		case update := <-watch.updates:
			svid := update.DefaultSVID()
			if _, _, err := x509svid.Verify(svid.Certificates, update.Bundles); err != nil {
				t.Fatalf("a pushed SVID does not verify: %v", err)
			}
			serials[svid.Certificates[0].SerialNumber.String()] = true
		case err := <-watch.errors:
			t.Fatalf("the watch broke: %v", err)
		case <-ctx.Done():
			t.Fatalf("only %d SVIDs were pushed", len(serials))
		}
	}
}

func TestWorkloadCallsThroughTheInboundListener(t *testing.T) {
	source, err := workloadapi.NewX509Source(limited(t))
	must(t, err, "X509Source")
	defer source.Close()
	server := spiffeid.RequireFromString(setting(t, "VOUCHSAFE_SERVER_ID"))
	client := &http.Client{Timeout: deadline, Transport: &http.Transport{
		TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(server)),
	}}

	allowed, err := client.Get("https://" + setting(t, "VOUCHSAFE_INBOUND") + "/allowed")
	must(t, err, "an allowed call")
	body, err := io.ReadAll(allowed.Body)
	must(t, err, "body")
	_ = allowed.Body.Close()
	if allowed.StatusCode != http.StatusOK || allowed.TLS.Version != tls.VersionTLS13 || allowed.TLS.DidResume {
		t.Fatalf("status %d, TLS %x, resumed %v: %s", allowed.StatusCode, allowed.TLS.Version, allowed.TLS.DidResume, body)
	}

	denied, err := client.Get("https://" + setting(t, "VOUCHSAFE_INBOUND") + "/forbidden")
	must(t, err, "a denied call")
	_ = denied.Body.Close()
	if denied.StatusCode != http.StatusForbidden {
		t.Fatalf("a denied call answered %d", denied.StatusCode)
	}
}

func TestWorkloadDialsTheInboundListenerWithSpiffetls(t *testing.T) {
	source, err := workloadapi.NewX509Source(limited(t))
	must(t, err, "X509Source")
	defer source.Close()
	address := setting(t, "VOUCHSAFE_INBOUND")
	server := spiffeid.RequireFromString(setting(t, "VOUCHSAFE_SERVER_ID"))
	right := spiffetls.MTLSClientWithRawConfig(tlsconfig.AuthorizeID(server), source, source)
	wrong := spiffetls.MTLSClientWithRawConfig(
		tlsconfig.AuthorizeID(spiffeid.RequireFromString(server.String()+"-other")), source, source)

	conn, err := spiffetls.DialWithMode(limited(t), "tcp", address, right)
	must(t, err, "dial")
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET /allowed HTTP/1.1\r\nHost: svc.internal\r\nConnection: close\r\n\r\n")
	must(t, err, "write")
	line, err := bufio.NewReader(conn).ReadString('\n')
	must(t, err, "read")
	if !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Fatalf("answered %q", line)
	}

	if other, err := spiffetls.DialWithMode(limited(t), "tcp", address, wrong); err == nil {
		_ = other.Close()
		t.Fatal("the server proved an identity it does not have")
	}
}

func workloadConn(t *testing.T) workload.SpiffeWorkloadAPIClient {
	t.Helper()
	conn, err := grpc.NewClient(setting(t, "SPIFFE_ENDPOINT_SOCKET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err, "dial the Workload API")
	t.Cleanup(func() { _ = conn.Close() })
	return workload.NewSpiffeWorkloadAPIClient(conn)
}

func TestWorkloadRequestWithoutTheSecurityHeaderIsInvalid(t *testing.T) {
	for name, pairs := range map[string][]string{
		"none": {}, "other value": {"workload.spiffe.io", "True"}, "twice": {"workload.spiffe.io", "true", "workload.spiffe.io", "true"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(limited(t), pairs...)
			stream, err := workloadConn(t).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
			must(t, err, "FetchX509SVID")
			_, err = stream.Recv()
			wantCode(t, err, codes.InvalidArgument, "FetchX509SVID")
			bundles, err := workloadConn(t).FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
			must(t, err, "FetchX509Bundles")
			_, err = bundles.Recv()
			wantCode(t, err, codes.InvalidArgument, "FetchX509Bundles")
		})
	}
}

func TestWorkloadJWTMethodsAreUnimplemented(t *testing.T) {
	ctx := metadata.AppendToOutgoingContext(limited(t), "workload.spiffe.io", "true")

	_, err := workloadConn(t).FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{"x"}})
	wantCode(t, err, codes.Unimplemented, "FetchJWTSVID")
	_, err = workloadConn(t).ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: "x", Svid: "y"})
	wantCode(t, err, codes.Unimplemented, "ValidateJWTSVID")
	stream, err := workloadConn(t).FetchJWTBundles(ctx, &workload.JWTBundlesRequest{})
	must(t, err, "FetchJWTBundles")
	if _, err = stream.Recv(); !errors.Is(err, io.EOF) {
		wantCode(t, err, codes.Unimplemented, "FetchJWTBundles")
	} else {
		t.Fatal("FetchJWTBundles ended without an answer")
	}
}

// A workload that matches no entry runs this one alone.
func TestStrangerIsToldThatItHasNoIdentity(t *testing.T) {
	ctx := metadata.AppendToOutgoingContext(limited(t), "workload.spiffe.io", "true")

	stream, err := workloadConn(t).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	must(t, err, "FetchX509SVID")
	_, err = stream.Recv()

	wantCode(t, err, codes.PermissionDenied, "FetchX509SVID")
	if !strings.Contains(err.Error(), "no identity issued") {
		t.Fatalf("message %q lacks the words that clients look for", err)
	}
}
