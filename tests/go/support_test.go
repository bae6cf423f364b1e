// Package interop drives Vouchsafe's daemons with the field's own Go modules.
// The daemons are started by the Rust system tests, which hand their addresses
// over in the environment; a missing one fails the test, it never skips.
package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const deadline = 20 * time.Second

func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: these tests are started by the system tests of the repository", name)
	}
	return value
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func trustDomain(t *testing.T) spiffeid.TrustDomain {
	t.Helper()
	domain, err := spiffeid.TrustDomainFromString(setting(t, "VOUCHSAFE_TRUST_DOMAIN"))
	must(t, err, "trust domain")
	return domain
}

// admin is a connection to the CA's admin socket.
func admin(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+setting(t, "VOUCHSAFE_ADMIN_SOCKET"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err, "dial the admin socket")
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// wire is a connection to the CA's TCP port under the given TLS configuration.
func wire(t *testing.T, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(setting(t, "VOUCHSAFE_CA"),
		grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(t, err, "dial the CA")
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func serverID(t *testing.T) tlsconfig.Authorizer {
	t.Helper()
	return tlsconfig.AuthorizeID(spiffeid.RequireFromPath(trustDomain(t), "/spire/server"))
}

// trustBundle reads the CA's bundle over the admin socket.
func trustBundle(t *testing.T) *x509bundle.Bundle {
	t.Helper()
	answer, err := bundlev1.NewBundleClient(admin(t)).GetBundle(limited(t), &bundlev1.GetBundleRequest{})
	must(t, err, "GetBundle")
	if answer.TrustDomain != trustDomain(t).Name() {
		t.Fatalf("bundle of %q, want %q", answer.TrustDomain, trustDomain(t).Name())
	}
	return bundleOf(t, answer)
}

func bundleOf(t *testing.T, answer *types.Bundle) *x509bundle.Bundle {
	t.Helper()
	bundle := x509bundle.New(trustDomain(t))
	for _, authority := range answer.X509Authorities {
		certificate, err := x509.ParseCertificate(authority.Asn1)
		must(t, err, "authority in the bundle")
		bundle.AddX509Authority(certificate)
	}
	if len(bundle.X509Authorities()) == 0 {
		t.Fatal("the bundle has no X.509 authority")
	}
	return bundle
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err, "key")
	return key
}

func csr(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err, "certificate request")
	return der
}

// greedyCSR asks for everything that a requester must not get to choose.
func greedyCSR(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	foreign, err := url.Parse("spiffe://elsewhere.test/admin")
	must(t, err, "foreign ID")
	isCA, err := asn1.Marshal(struct{ CA bool }{true})
	must(t, err, "basic constraints")
	keyUsage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x06}, BitLength: 7})
	must(t, err, "key usage")
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", Organization: []string{"Somebody Else"}},
		URIs:     []*url.URL{foreign},
		DNSNames: []string{"victim.example.com"},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: isCA},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: keyUsage},
		},
	}, key)
	must(t, err, "certificate request")
	return der
}

// agent is an attested node: its ID, SVID and a connection that presents it.
type agent struct {
	id   spiffeid.ID
	svid *x509svid.SVID
	conn *grpc.ClientConn
}

func joinToken(t *testing.T) string {
	t.Helper()
	token, err := agentv1.NewAgentClient(admin(t)).CreateJoinToken(limited(t), &agentv1.CreateJoinTokenRequest{Ttl: 600})
	must(t, err, "CreateJoinToken")
	if token.Value == "" || token.ExpiresAt <= time.Now().Unix() {
		t.Fatalf("join token %+v has no value or is already over", token)
	}
	return token.Value
}

func attest(t *testing.T, token string, request []byte) (*types.X509SVID, error) {
	t.Helper()
	conn := wire(t, tlsconfig.TLSClientConfig(trustBundle(t), serverID(t)))
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(limited(t))
	if err != nil {
		return nil, err
	}
	err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: "join_token", Payload: []byte(token)},
			Params: &agentv1.AgentX509SVIDParams{Csr: request},
		},
	}})
	if err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if answer.GetResult() == nil {
		t.Fatalf("AttestAgent answered %+v, want a result", answer)
	}
	return answer.GetResult().Svid, nil
}

func attested(t *testing.T) *agent {
	t.Helper()
	token := joinToken(t)
	key := newKey(t)
	raw, err := attest(t, token, csr(t, key))
	must(t, err, "AttestAgent")
	want := spiffeid.RequireFromPath(trustDomain(t), "/spire/agent/join_token/"+token)
	return withSVID(t, want, raw, key)
}

// withSVID checks an answered SVID and connects with it.
func withSVID(t *testing.T, want spiffeid.ID, raw *types.X509SVID, key *ecdsa.PrivateKey) *agent {
	t.Helper()
	svid := checked(t, want, raw, key)
	conn := wire(t, tlsconfig.MTLSClientConfig(svid, trustBundle(t), serverID(t)))
	return &agent{id: want, svid: svid, conn: conn}
}

func checked(t *testing.T, want spiffeid.ID, raw *types.X509SVID, key *ecdsa.PrivateKey) *x509svid.SVID {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range raw.CertChain {
		certificate, err := x509.ParseCertificate(der)
		must(t, err, "certificate of the SVID")
		chain = append(chain, certificate)
	}
	id, _, err := x509svid.Verify(chain, trustBundle(t))
	must(t, err, "verify the SVID")
	if id != want || raw.Id.GetTrustDomain() != want.TrustDomain().Name() || raw.Id.GetPath() != want.Path() {
		t.Fatalf("SVID is for %s (answer says %v), want %s", id, raw.Id, want)
	}
	public, ok := chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(&key.PublicKey) {
		t.Fatal("the SVID is not over the key of the request")
	}
	if chain[0].NotAfter.Unix() != raw.ExpiresAt {
		t.Fatalf("expires_at is %d, the certificate says %d", raw.ExpiresAt, chain[0].NotAfter.Unix())
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
}

func entry(t *testing.T, parent spiffeid.ID, path string, selectors ...string) *types.Entry {
	t.Helper()
	wanted := &types.Entry{
		SpiffeId: &types.SPIFFEID{TrustDomain: trustDomain(t).Name(), Path: path},
		ParentId: &types.SPIFFEID{TrustDomain: parent.TrustDomain().Name(), Path: parent.Path()},
	}
	for _, value := range selectors {
		wanted.Selectors = append(wanted.Selectors, &types.Selector{Type: "unix", Value: value})
	}
	return wanted
}

func created(t *testing.T, wanted *types.Entry) *types.Entry {
	t.Helper()
	answer, err := entryv1.NewEntryClient(admin(t)).BatchCreateEntry(limited(t),
		&entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{wanted}})
	must(t, err, "BatchCreateEntry")
	if len(answer.Results) != 1 || answer.Results[0].Status.GetCode() != int32(codes.OK) {
		t.Fatalf("BatchCreateEntry answered %+v", answer.Results)
	}
	return answer.Results[0].Entry
}

func newSVID(t *testing.T, node *agent, entryID string, request []byte) *svidv1.BatchNewX509SVIDResponse_Result {
	t.Helper()
	answer, err := svidv1.NewSVIDClient(node.conn).BatchNewX509SVID(limited(t), &svidv1.BatchNewX509SVIDRequest{
		Params: []*svidv1.NewX509SVIDParams{{EntryId: entryID, Csr: request}},
	})
	must(t, err, "BatchNewX509SVID")
	if len(answer.Results) != 1 {
		t.Fatalf("%d results for one request", len(answer.Results))
	}
	return answer.Results[0]
}

func must(t *testing.T, err error, doing string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", doing, err)
	}
}

func wantCode(t *testing.T, err error, want codes.Code, doing string) {
	t.Helper()
	if status.Code(err) != want {
		t.Fatalf("%s: got %v, want %s", doing, err, want)
	}
}
