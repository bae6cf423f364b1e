package interop

import (
	"crypto/x509"
	"fmt"
	"io"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
)

func TestCAEntryLivesFromCreateToDelete(t *testing.T) {
	node := attested(t)
	entries := entryv1.NewEntryClient(admin(t))
	before := count(t, entries)

	made := created(t, entry(t, node.id, "/life/one", "uid:1001", "gid:1001"))
	if made.Id == "" || made.CreatedAt == 0 || len(made.Selectors) != 2 {
		t.Fatalf("created entry is incomplete: %+v", made)
	}
	if now := count(t, entries); now != before+1 {
		t.Fatalf("CountEntries went from %d to %d", before, now)
	}

	read, err := entries.GetEntry(limited(t), &entryv1.GetEntryRequest{Id: made.Id})
	must(t, err, "GetEntry")
	if read.SpiffeId.Path != "/life/one" || read.ParentId.Path != node.id.Path() {
		t.Fatalf("GetEntry answered %+v", read)
	}

	update := &types.Entry{Id: made.Id, X509SvidTtl: 120}
	changed, err := entries.BatchUpdateEntry(limited(t), &entryv1.BatchUpdateEntryRequest{
		Entries: []*types.Entry{update}, InputMask: &types.EntryMask{X509SvidTtl: true}})
	must(t, err, "BatchUpdateEntry")
	after := changed.Results[0].Entry
	if changed.Results[0].Status.Code != 0 || after.X509SvidTtl != 120 || after.SpiffeId.Path != "/life/one" ||
		after.RevisionNumber <= made.RevisionNumber {
		t.Fatalf("BatchUpdateEntry answered %+v after %+v", changed.Results[0], made)
	}

	gone, err := entries.BatchDeleteEntry(limited(t), &entryv1.BatchDeleteEntryRequest{Ids: []string{made.Id}})
	must(t, err, "BatchDeleteEntry")
	if gone.Results[0].Status.Code != 0 || gone.Results[0].Id != made.Id {
		t.Fatalf("BatchDeleteEntry answered %+v", gone.Results[0])
	}
	_, err = entries.GetEntry(limited(t), &entryv1.GetEntryRequest{Id: made.Id})
	wantCode(t, err, codes.NotFound, "GetEntry of a deleted entry")
	if now := count(t, entries); now != before {
		t.Fatalf("CountEntries is %d after the deletion, was %d", now, before)
	}
}

func count(t *testing.T, entries entryv1.EntryClient) int32 {
	t.Helper()
	answer, err := entries.CountEntries(limited(t), &entryv1.CountEntriesRequest{})
	must(t, err, "CountEntries")
	return answer.Count
}

func TestCAListsEntriesInPagesAndByFilter(t *testing.T) {
	node := attested(t)
	entries := entryv1.NewEntryClient(admin(t))
	want := map[string]bool{}
	for _, path := range []string{"/page/a", "/page/b", "/page/c", "/page/d", "/page/e"} {
		want[created(t, entry(t, node.id, path, "uid:2001")).Id] = true
	}
	byParent := &entryv1.ListEntriesRequest_Filter{ByParentId: wireID(node)}

	token := ""
	for page := 0; ; page++ {
		answer, err := entries.ListEntries(limited(t),
			&entryv1.ListEntriesRequest{Filter: byParent, PageSize: 2, PageToken: token})
		must(t, err, "ListEntries")
		if len(answer.Entries) > 2 || page > 5 {
			t.Fatalf("page %d has %d entries", page, len(answer.Entries))
		}
		for _, listed := range answer.Entries {
			if !want[listed.Id] {
				t.Fatalf("entry %s is listed twice or does not match the filter", listed.SpiffeId)
			}
			delete(want, listed.Id)
		}
		if token = answer.NextPageToken; token == "" {
			break
		}
	}
	if len(want) != 0 {
		t.Fatalf("%d entries were not listed", len(want))
	}
}

func TestCASameEntryTwiceAnswersAlreadyExists(t *testing.T) {
	node := attested(t)
	first := created(t, entry(t, node.id, "/twice", "uid:3001"))

	answer, err := entryv1.NewEntryClient(admin(t)).BatchCreateEntry(limited(t),
		&entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{entry(t, node.id, "/twice", "uid:3001")}})

	must(t, err, "BatchCreateEntry")
	result := answer.Results[0]
	if result.Status.Code != int32(codes.AlreadyExists) || result.Entry.GetId() != first.Id {
		t.Fatalf("got %+v, want AlreadyExists with entry %s", result, first.Id)
	}
}

func TestCABadEntriesAreRefusedOneByOne(t *testing.T) {
	node := attested(t)
	domain := trustDomain(t).Name()
	parent := wireID(node)
	selectors := []*types.Selector{{Type: "unix", Value: "uid:1"}}
	id := func(domain, path string) *types.SPIFFEID { return &types.SPIFFEID{TrustDomain: domain, Path: path} }
	bad := map[string]*types.Entry{
		"no selectors":           {SpiffeId: id(domain, "/x"), ParentId: parent},
		"empty selector":         {SpiffeId: id(domain, "/x"), ParentId: parent, Selectors: []*types.Selector{{Type: "unix"}}},
		"selector type with :":   {SpiffeId: id(domain, "/x"), ParentId: parent, Selectors: []*types.Selector{{Type: "un:ix", Value: "uid:1"}}},
		"no SPIFFE ID":           {ParentId: parent, Selectors: selectors},
		"no parent":              {SpiffeId: id(domain, "/x"), Selectors: selectors},
		"foreign trust domain":   {SpiffeId: id("elsewhere.test", "/x"), ParentId: parent, Selectors: selectors},
		"foreign parent":         {SpiffeId: id(domain, "/x"), ParentId: id("elsewhere.test", "/x"), Selectors: selectors},
		"path without a slash":   {SpiffeId: id(domain, "x"), ParentId: parent, Selectors: selectors},
		"path with a trailing /": {SpiffeId: id(domain, "/x/"), ParentId: parent, Selectors: selectors},
		"dot segment":            {SpiffeId: id(domain, "/a/../x"), ParentId: parent, Selectors: selectors},
		"percent encoding":       {SpiffeId: id(domain, "/a%2fx"), ParentId: parent, Selectors: selectors},
		"space":                  {SpiffeId: id(domain, "/a x"), ParentId: parent, Selectors: selectors},
		"negative lifetime":      {SpiffeId: id(domain, "/x"), ParentId: parent, Selectors: selectors, X509SvidTtl: -1},
		"bad DNS name":           {SpiffeId: id(domain, "/x"), ParentId: parent, Selectors: selectors, DnsNames: []string{"no spaces here"}},
	}
	for name, wanted := range bad {
		t.Run(name, func(t *testing.T) {
			entries := entryv1.NewEntryClient(admin(t))
			before := count(t, entries)
			answer, err := entries.BatchCreateEntry(limited(t), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{wanted}})
			must(t, err, "BatchCreateEntry")
			if code := answer.Results[0].Status.Code; code != int32(codes.InvalidArgument) {
				t.Fatalf("status %v, want InvalidArgument", answer.Results[0].Status)
			}
			if answer.Results[0].Status.Message == "" {
				t.Fatal("the refusal has no reason")
			}
			if now := count(t, entries); now != before {
				t.Fatalf("a refused entry was stored: %d then %d", before, now)
			}
		})
	}
}

func TestCAAgentIsAuthorizedForItsOwnEntriesOnly(t *testing.T) {
	mine, other := attested(t), attested(t)
	first := created(t, entry(t, mine.id, "/mine/a", "uid:4001"))
	second := created(t, entry(t, mine.id, "/mine/b", "uid:4002"))
	foreign := created(t, entry(t, other.id, "/other", "uid:4003"))

	answer, err := entryv1.NewEntryClient(mine.conn).GetAuthorizedEntries(limited(t), &entryv1.GetAuthorizedEntriesRequest{})

	must(t, err, "GetAuthorizedEntries")
	seen := map[string]bool{}
	for _, authorized := range answer.Entries {
		seen[authorized.Id] = true
	}
	if len(seen) != 2 || !seen[first.Id] || !seen[second.Id] {
		t.Fatalf("authorized for %v, want exactly %s and %s", seen, first.Id, second.Id)
	}
	refused := newSVID(t, mine, foreign.Id, csr(t, newKey(t)))
	if code := refused.Status.Code; code != int32(codes.NotFound) && code != int32(codes.PermissionDenied) {
		t.Fatalf("an agent got an SVID of another agent's entry: %+v", refused.Status)
	}
}

// SPIRE's server sends a list of up to 500 entries whole and ends the stream.
func TestCASyncAuthorizedEntriesSendsAShortListWhole(t *testing.T) {
	node := attested(t)
	first := created(t, entry(t, node.id, "/sync/a", "uid:5001"))
	second := created(t, entry(t, node.id, "/sync/b", "uid:5002"))
	stream, err := entryv1.NewEntryClient(node.conn).SyncAuthorizedEntries(limited(t))
	must(t, err, "SyncAuthorizedEntries")

	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{}), "first request")
	answer, err := stream.Recv()
	must(t, err, "first answer")
	seen := map[string]bool{}
	for _, entry := range answer.Entries {
		seen[entry.Id] = true
	}
	if len(seen) != 2 || !seen[first.Id] || !seen[second.Id] || answer.More || len(answer.EntryRevisions) != 0 {
		t.Fatalf("got %+v, want both entries", answer)
	}
	if _, err = stream.Recv(); err != io.EOF {
		t.Fatalf("the stream ended with %v", err)
	}
}

// Of a longer list it sends the revisions, and then the entries that the agent asks for.
func TestCASyncAuthorizedEntriesSendsWhatTheAgentLacks(t *testing.T) {
	const many = 501
	node := attested(t)
	var wanted []*types.Entry
	for i := range many {
		wanted = append(wanted, entry(t, node.id, fmt.Sprintf("/sync/%d", i), fmt.Sprintf("uid:%d", 50000+i)))
	}
	made, err := entryv1.NewEntryClient(admin(t)).BatchCreateEntry(limited(t), &entryv1.BatchCreateEntryRequest{Entries: wanted})
	must(t, err, "BatchCreateEntry")
	asked := made.Results[many-1].Entry
	stream, err := entryv1.NewEntryClient(node.conn).SyncAuthorizedEntries(limited(t))
	must(t, err, "SyncAuthorizedEntries")

	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{}), "first request")
	revisions := map[string]int64{}
	for more := true; more; {
		answer, err := stream.Recv()
		must(t, err, "page of revisions")
		if len(answer.Entries) != 0 {
			t.Fatalf("%d entries came unasked", len(answer.Entries))
		}
		for _, revision := range answer.EntryRevisions {
			revisions[revision.Id] = revision.RevisionNumber
		}
		more = answer.More
	}
	if _, ok := revisions[asked.Id]; !ok || len(revisions) != many {
		t.Fatalf("%d revisions, want %d with %s among them", len(revisions), many, asked.Id)
	}

	must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{asked.Id}}), "request of one entry")
	answer, err := stream.Recv()
	must(t, err, "answer with one entry")
	if len(answer.Entries) != 1 || answer.Entries[0].Id != asked.Id || answer.Entries[0].SpiffeId.Path != "/sync/500" {
		t.Fatalf("asked for %s, got %+v", asked.Id, answer.Entries)
	}
	must(t, stream.CloseSend(), "close")
	if _, err = stream.Recv(); err != io.EOF {
		t.Fatalf("the stream ended with %v", err)
	}
}

func TestCAIssuesAWorkloadSVIDOverTheRequestsKeyAlone(t *testing.T) {
	node := attested(t)
	wanted := entry(t, node.id, "/workload", "uid:6001")
	wanted.DnsNames = []string{"workload.internal"}
	made := created(t, wanted)
	key := newKey(t)

	result := newSVID(t, node, made.Id, greedyCSR(t, key))

	if result.Status.Code != 0 {
		t.Fatalf("status %v", result.Status)
	}
	svid := checked(t, spiffeid.RequireFromPath(trustDomain(t), "/workload"), result.Svid, key)
	leaf := svid.Certificates[0]
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "workload.internal" {
		t.Fatalf("DNS names %v, want the entry's", leaf.DNSNames)
	}
	leaf.DNSNames = nil
	onlyWhatTheCAChose(t, leaf, trustDomain(t).IDString()+"/workload")
}

func TestCARefusesARequestItCannotTrust(t *testing.T) {
	node := attested(t)
	made := created(t, entry(t, node.id, "/strict", "uid:7001"))
	good := csr(t, newKey(t))
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-3] ^= 0xff
	for name, request := range map[string][]byte{
		"empty": nil, "not DER": []byte("hello"), "trailing bytes": append(append([]byte(nil), good...), 0),
		"signature of nobody": flipped,
	} {
		t.Run(name, func(t *testing.T) {
			result := newSVID(t, node, made.Id, request)
			if result.Status.Code != int32(codes.InvalidArgument) || result.Svid != nil {
				t.Fatalf("got %+v, want InvalidArgument", result)
			}
		})
	}
}

func TestCALifetimeOfAnSVIDIsTheEntrysAndWithinTheAuthoritys(t *testing.T) {
	node := attested(t)
	wanted := entry(t, node.id, "/short", "uid:8001")
	wanted.X509SvidTtl = 60
	short := created(t, wanted)
	wanted = entry(t, node.id, "/endless", "uid:8002")
	wanted.X509SvidTtl = 10 * 365 * 24 * 3600
	endless := created(t, wanted)

	leaf := issuedLeaf(t, node, short.Id)
	if life := leaf.NotAfter.Sub(leaf.NotBefore).Seconds(); life < 60 || life > 90 {
		t.Fatalf("60 s were asked for, the certificate lives %.0f s", life)
	}
	leaf = issuedLeaf(t, node, endless.Id)
	last := trustBundle(t).X509Authorities()[0].NotAfter
	for _, authority := range trustBundle(t).X509Authorities() {
		if authority.NotAfter.After(last) {
			last = authority.NotAfter
		}
	}
	if leaf.NotAfter.After(last) {
		t.Fatalf("the SVID outlives its authority: %s after %s", leaf.NotAfter, last)
	}
}

func issuedLeaf(t *testing.T, node *agent, entryID string) *x509.Certificate {
	t.Helper()
	result := newSVID(t, node, entryID, csr(t, newKey(t)))
	if result.Status.Code != 0 {
		t.Fatalf("status %v", result.Status)
	}
	leaf, err := x509.ParseCertificate(result.Svid.CertChain[0])
	must(t, err, "leaf")
	return leaf
}
