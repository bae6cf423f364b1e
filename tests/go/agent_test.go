package interop

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCAJoinTokenAttestsOneAgentOnce(t *testing.T) {
	token := joinToken(t)
	key := newKey(t)
	_, err := attest(t, token, csr(t, key))
	must(t, err, "first use of the token")

	_, err = attest(t, token, csr(t, newKey(t)))

	if err == nil {
		t.Fatal("the same join token attested a second agent with another key")
	}
	if code := status.Code(err); code != codes.InvalidArgument && code != codes.PermissionDenied {
		t.Fatalf("second use of the token: %v", err)
	}
}

func TestCATheKeyThatSpentATokenMayRetry(t *testing.T) {
	token := joinToken(t)
	key := newKey(t)
	_, err := attest(t, token, csr(t, key))
	must(t, err, "first use of the token")

	_, err = attest(t, token, csr(t, key))

	must(t, err, "retry of the same key")
}

func TestCAUnknownJoinTokenIsRefused(t *testing.T) {
	_, err := attest(t, "00000000-0000-0000-0000-000000000000", csr(t, newKey(t)))

	if err == nil {
		t.Fatal("a token that was never issued attested an agent")
	}
}

func TestCAOnlyThePublicKeyOfAnAgentsRequestCounts(t *testing.T) {
	token := joinToken(t)
	key := newKey(t)

	raw, err := attest(t, token, greedyCSR(t, key))
	must(t, err, "AttestAgent")

	leaf, err := x509.ParseCertificate(raw.CertChain[0])
	must(t, err, "leaf")
	onlyWhatTheCAChose(t, leaf, trustDomain(t).IDString()+"/spire/agent/join_token/"+token)
}

func onlyWhatTheCAChose(t *testing.T, leaf *x509.Certificate, id string) {
	t.Helper()
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		t.Fatal("the requester made itself an authority")
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id {
		t.Fatalf("URI names %v, want %s alone", leaf.URIs, id)
	}
	if len(leaf.DNSNames) != 0 || len(leaf.IPAddresses) != 0 || len(leaf.EmailAddresses) != 0 {
		t.Fatalf("names from the request: %v %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses)
	}
	if leaf.Subject.CommonName == "root" {
		t.Fatal("the subject is the requester's")
	}
	for _, organisation := range leaf.Subject.Organization {
		if organisation == "Somebody Else" {
			t.Fatal("the subject is the requester's")
		}
	}
	if !leaf.BasicConstraintsValid || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || len(leaf.ExtKeyUsage) != 2 {
		t.Fatal("not the profile of an X.509-SVID leaf")
	}
	if leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() < 64 {
		t.Fatalf("serial %v is not a random positive number", leaf.SerialNumber)
	}
}

func TestCARenewalKeepsTheOldSVIDUntilTheNewOneIsUsed(t *testing.T) {
	node := attested(t)
	key := newKey(t)
	answer, err := agentv1.NewAgentClient(node.conn).RenewAgent(limited(t),
		&agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr(t, key)}})
	must(t, err, "RenewAgent")

	usable(t, node, "old SVID before the new one was seen")
	renewed := withSVID(t, node.id, answer.Svid, key)
	usable(t, renewed, "new SVID")

	late := &agent{id: node.id, svid: node.svid,
		conn: wire(t, tlsconfig.MTLSClientConfig(node.svid, trustBundle(t), serverID(t)))}
	_, err = entryv1.NewEntryClient(late.conn).GetAuthorizedEntries(limited(t), &entryv1.GetAuthorizedEntriesRequest{})
	wantReason(t, err, types.PermissionDeniedDetails_AGENT_NOT_ACTIVE, "old SVID after the new one was used")
}

func usable(t *testing.T, node *agent, what string) {
	t.Helper()
	_, err := entryv1.NewEntryClient(node.conn).GetAuthorizedEntries(limited(t), &entryv1.GetAuthorizedEntriesRequest{})
	must(t, err, what)
}

func wantReason(t *testing.T, err error, want types.PermissionDeniedDetails_Reason, doing string) {
	t.Helper()
	wantCode(t, err, codes.PermissionDenied, doing)
	for _, detail := range status.Convert(err).Details() {
		if denied, ok := detail.(*types.PermissionDeniedDetails); ok {
			if denied.Reason != want {
				t.Fatalf("%s: reason %s, want %s", doing, denied.Reason, want)
			}
			return
		}
	}
	t.Fatalf("%s: no PermissionDeniedDetails in %v", doing, err)
}

func TestCABannedAgentIsRefusedEverythingAtOnce(t *testing.T) {
	node := attested(t)
	usable(t, node, "before the ban")
	agents := agentv1.NewAgentClient(admin(t))
	_, err := agents.BanAgent(limited(t), &agentv1.BanAgentRequest{Id: wireID(node)})
	must(t, err, "BanAgent")

	_, err = entryv1.NewEntryClient(node.conn).GetAuthorizedEntries(limited(t), &entryv1.GetAuthorizedEntriesRequest{})
	wantReason(t, err, types.PermissionDeniedDetails_AGENT_BANNED, "a banned agent")

	seen, err := agents.GetAgent(limited(t), &agentv1.GetAgentRequest{Id: wireID(node)})
	must(t, err, "GetAgent")
	if !seen.Banned {
		t.Fatal("the agent is not shown as banned")
	}
}

func wireID(node *agent) *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: node.id.TrustDomain().Name(), Path: node.id.Path()}
}

func TestCADeletedAgentMustAttestAgain(t *testing.T) {
	node := attested(t)
	usable(t, node, "before it was deleted")
	_, err := agentv1.NewAgentClient(admin(t)).DeleteAgent(limited(t), &agentv1.DeleteAgentRequest{Id: wireID(node)})
	must(t, err, "DeleteAgent")

	_, err = entryv1.NewEntryClient(node.conn).GetAuthorizedEntries(limited(t), &entryv1.GetAuthorizedEntriesRequest{})

	wantReason(t, err, types.PermissionDeniedDetails_AGENT_NOT_ATTESTED, "a deleted agent")
}

func TestCAListsTheAgentsItKnowsInPages(t *testing.T) {
	want := map[string]bool{attested(t).id.Path(): true, attested(t).id.Path(): true, attested(t).id.Path(): true}
	agents := agentv1.NewAgentClient(admin(t))

	seen := 0
	for page, token := 0, ""; ; page++ {
		answer, err := agents.ListAgents(limited(t), &agentv1.ListAgentsRequest{PageSize: 2, PageToken: token})
		must(t, err, "ListAgents")
		if len(answer.Agents) > 2 || page > 100 {
			t.Fatalf("page %d has %d agents", page, len(answer.Agents))
		}
		for _, known := range answer.Agents {
			seen++
			if known.AttestationType != "join_token" || known.X509SvidSerialNumber == "" || known.X509SvidExpiresAt <= time.Now().Unix() {
				t.Fatalf("incomplete agent %+v", known)
			}
			delete(want, known.Id.Path)
		}
		if token = answer.NextPageToken; token == "" {
			break
		}
	}
	if len(want) != 0 {
		t.Fatalf("not listed: %v", want)
	}
	count, err := agents.CountAgents(limited(t), &agentv1.CountAgentsRequest{})
	must(t, err, "CountAgents")
	if int(count.Count) != seen {
		t.Fatalf("CountAgents says %d, the list had %d", count.Count, seen)
	}
}

func TestCAGivesItsBundleToAnybodyAndNothingElse(t *testing.T) {
	conn := wire(t, tlsconfig.TLSClientConfig(trustBundle(t), serverID(t)))

	answer, err := bundlev1.NewBundleClient(conn).GetBundle(limited(t), &bundlev1.GetBundleRequest{})
	must(t, err, "GetBundle without an SVID")
	if !bundleOf(t, answer).Equal(trustBundle(t)) {
		t.Fatal("the bundle on the wire is not the one of the admin socket")
	}

	_, err = entryv1.NewEntryClient(conn).GetAuthorizedEntries(limited(t), &entryv1.GetAuthorizedEntriesRequest{})
	wantRefused(t, err, "GetAuthorizedEntries without an SVID")
	_, err = entryv1.NewEntryClient(conn).ListEntries(limited(t), &entryv1.ListEntriesRequest{})
	wantRefused(t, err, "ListEntries without an SVID")
	_, err = agentv1.NewAgentClient(conn).CreateJoinToken(limited(t), &agentv1.CreateJoinTokenRequest{Ttl: 60})
	wantRefused(t, err, "CreateJoinToken without an SVID")
}

func wantRefused(t *testing.T, err error, doing string) {
	t.Helper()
	if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unauthenticated {
		t.Fatalf("%s: got %v, want a refusal", doing, err)
	}
}

func TestCAAnAgentIsNoAdministrator(t *testing.T) {
	node := attested(t)

	_, err := agentv1.NewAgentClient(node.conn).CreateJoinToken(limited(t), &agentv1.CreateJoinTokenRequest{Ttl: 60})
	wantRefused(t, err, "CreateJoinToken by an agent")
	_, err = agentv1.NewAgentClient(node.conn).ListAgents(limited(t), &agentv1.ListAgentsRequest{})
	wantRefused(t, err, "ListAgents by an agent")
	_, err = agentv1.NewAgentClient(node.conn).BanAgent(limited(t), &agentv1.BanAgentRequest{Id: wireID(node)})
	wantRefused(t, err, "BanAgent by an agent")
	_, err = entryv1.NewEntryClient(node.conn).BatchCreateEntry(limited(t),
		&entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{entry(t, node.id, "/self-made", "uid:0")}})
	wantRefused(t, err, "BatchCreateEntry by an agent")
}
