package interop

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Applications that know nothing of sidecars, and one that is a SPIFFE peer itself. The TestServe ones run
// until the system test that started them ends them.

// TestServeApplication answers HTTP/1.1, HTTP/2 and WebSocket on every address of VOUCHSAFE_LISTEN, and gRPC on VOUCHSAFE_LISTEN_GRPC.
func TestServeApplication(t *testing.T) {
	serving := &http.Server{Handler: application(), Protocols: new(http.Protocols)}
	serving.Protocols.SetHTTP1(true)
	serving.Protocols.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", setting(t, "VOUCHSAFE_LISTEN"))
	must(t, err, "listen")
	calls, err := net.Listen("tcp", setting(t, "VOUCHSAFE_LISTEN_GRPC"))
	must(t, err, "listen")
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, &testService{})
	go func() { _ = server.Serve(calls) }()

	fmt.Println("serving")
	must(t, serving.Serve(listener), "serve")
}

// TestServeSpiffeTLS is an HTTPS server of go-spiffe that lets nobody in but VOUCHSAFE_CLIENT_ID.
func TestServeSpiffeTLS(t *testing.T) {
	source, err := workloadapi.NewX509Source(limited(t))
	must(t, err, "X509Source")
	defer source.Close()
	client := spiffeid.RequireFromString(setting(t, "VOUCHSAFE_CLIENT_ID"))
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(client))
	listener, err := tls.Listen("tcp", setting(t, "VOUCHSAFE_LISTEN"), config)
	must(t, err, "listen")
	caller := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		id, err := spiffeid.FromURI(request.TLS.PeerCertificates[0].URIs[0])
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintf(answer, "go-spiffe was called by %s over %s", id, request.Proto)
	})

	fmt.Println("serving")
	must(t, http.Serve(listener, caller), "serve")
}

func application() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(answer http.ResponseWriter, request *http.Request) {
		_, _ = fmt.Fprintf(answer, "hello over %s", request.Proto)
	})
	mux.HandleFunc("GET /bytes/{size}", func(answer http.ResponseWriter, request *http.Request) {
		answer.Header().Set("Content-Length", request.PathValue("size"))
		_, _ = io.Copy(answer, stream(request.PathValue("size")))
	})
	mux.HandleFunc("GET /sum/{size}", func(answer http.ResponseWriter, request *http.Request) {
		_, _ = io.WriteString(answer, sum(stream(request.PathValue("size"))))
	})
	mux.HandleFunc("PUT /sum", func(answer http.ResponseWriter, request *http.Request) {
		_, _ = io.WriteString(answer, sum(request.Body))
	})
	mux.Handle("/echo", websocket.Handler(func(socket *websocket.Conn) {
		for {
			var message []byte
			if websocket.Message.Receive(socket, &message) != nil || websocket.Message.Send(socket, message) != nil {
				return
			}
		}
	}))
	return mux
}

// Bytes of which no two parts are alike: what is lost, doubled or moved changes their sum.
func stream(size string) io.Reader {
	length, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		panic(err)
	}
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err)
	}
	return io.LimitReader(cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, 16)), R: zeros{}}, length)
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

func sum(from io.Reader) string {
	digest := sha256.New()
	if _, err := io.Copy(digest, from); err != nil {
		return err.Error()
	}
	return hex.EncodeToString(digest.Sum(nil))
}

type testService struct {
	grpc_testing.UnimplementedTestServiceServer
}

// EmptyCall fails on purpose: the status of an application is not that of a sidecar.
func (*testService) EmptyCall(_ context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return nil, status.Error(codes.FailedPrecondition, "of the application")
}

func (*testService) UnaryCall(call context.Context, request *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if sent, _ := metadata.FromIncomingContext(call); len(sent.Get("tests-bin")) == 1 {
		_ = grpc.SetHeader(call, metadata.Pairs("tests-head", "head"))
		_ = grpc.SetTrailer(call, metadata.Pairs("tests-trail-bin", sent.Get("tests-bin")[0]))
	}
	return &grpc_testing.SimpleResponse{Payload: request.Payload}, nil
}

func (*testService) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: request.Payload}); err != nil {
			return err
		}
	}
}

func (*testService) StreamingInputCall(stream grpc_testing.TestService_StreamingInputCallServer) error {
	size := 0
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		}
		if err != nil {
			return err
		}
		size += len(request.Payload.Body)
	}
}

func (*testService) StreamingOutputCall(request *grpc_testing.StreamingOutputCallRequest, stream grpc_testing.TestService_StreamingOutputCallServer) error {
	for _, wanted := range request.ResponseParameters {
		answer := &grpc_testing.StreamingOutputCallResponse{Payload: payload(int(wanted.Size))}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

func payload(size int) *grpc_testing.Payload {
	return &grpc_testing.Payload{Body: make([]byte, size)}
}

func service(t *testing.T) grpc_testing.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+setting(t, "VOUCHSAFE_GRPC"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err, "dial")
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

func TestRPCUnaryCallKeepsPayloadMetadataAndTrailers(t *testing.T) {
	client := service(t)
	call := metadata.AppendToOutgoingContext(limited(t), "tests-bin", "\x00\xff\x01")
	var head, trail metadata.MD

	answer, err := client.UnaryCall(call, &grpc_testing.SimpleRequest{Payload: payload(1 << 20)}, grpc.Header(&head), grpc.Trailer(&trail))

	must(t, err, "UnaryCall")
	if len(answer.Payload.Body) != 1<<20 {
		t.Fatalf("%d bytes came back", len(answer.Payload.Body))
	}
	if got := head.Get("tests-head"); len(got) != 1 || got[0] != "head" {
		t.Fatalf("header %v", head)
	}
	if got := trail.Get("tests-trail-bin"); len(got) != 1 || got[0] != "\x00\xff\x01" {
		t.Fatalf("trailer %v", trail)
	}
}

func TestRPCStreamsBothWaysTurnByTurn(t *testing.T) {
	stream, err := service(t).FullDuplexCall(limited(t))
	must(t, err, "FullDuplexCall")

	for size := 1; size <= 1<<18; size *= 4 {
		must(t, stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: payload(size)}), "send")
		answer, err := stream.Recv()
		must(t, err, "receive")
		if len(answer.Payload.Body) != size {
			t.Fatalf("%d bytes came back for %d", len(answer.Payload.Body), size)
		}
	}

	must(t, stream.CloseSend(), "close")
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the stream ended with %v", err)
	}
}

func TestRPCStreamsInAndOut(t *testing.T) {
	client := service(t)
	into, err := client.StreamingInputCall(limited(t))
	must(t, err, "StreamingInputCall")
	for range 200 {
		must(t, into.Send(&grpc_testing.StreamingInputCallRequest{Payload: payload(16_000)}), "send")
	}
	answer, err := into.CloseAndRecv()
	must(t, err, "CloseAndRecv")
	if answer.AggregatedPayloadSize != 200*16_000 {
		t.Fatalf("%d bytes arrived", answer.AggregatedPayloadSize)
	}

	wanted := make([]*grpc_testing.ResponseParameters, 200)
	for index := range wanted {
		wanted[index] = &grpc_testing.ResponseParameters{Size: 16_000}
	}
	out, err := client.StreamingOutputCall(limited(t), &grpc_testing.StreamingOutputCallRequest{ResponseParameters: wanted})
	must(t, err, "StreamingOutputCall")
	for range wanted {
		_, err := out.Recv()
		must(t, err, "receive")
	}
	if _, err := out.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the stream ended with %v", err)
	}
}

func TestRPCStatusOfTheApplicationComesThrough(t *testing.T) {
	_, err := service(t).EmptyCall(limited(t), &grpc_testing.Empty{})

	wantCode(t, err, codes.FailedPrecondition, "EmptyCall")
	if status.Convert(err).Message() != "of the application" {
		t.Fatalf("message %q", status.Convert(err).Message())
	}
}

// No policy of the system tests grants this method.
func TestRPCThatNoPolicyGrantsIsDenied(t *testing.T) {
	client := service(t)

	_, err := client.UnimplementedCall(limited(t), &grpc_testing.Empty{})

	wantCode(t, err, codes.PermissionDenied, "UnimplementedCall")
	_, err = client.UnaryCall(limited(t), &grpc_testing.SimpleRequest{Payload: payload(10)})
	must(t, err, "a call on the connection of one that was denied")
}

func TestRPCOfAnUnknownCallerIsRefused(t *testing.T) {
	_, err := service(t).UnaryCall(limited(t), &grpc_testing.SimpleRequest{})

	if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unavailable {
		t.Fatalf("answered %v", err)
	}
}

func TestWebSocketEchoesThroughTheSidecars(t *testing.T) {
	address := setting(t, "VOUCHSAFE_HTTP")
	socket, err := websocket.Dial("ws://"+address+"/echo", "", "http://"+address)
	must(t, err, "dial")
	defer socket.Close()

	for size := 1; size <= 1<<20; size *= 4 {
		message, err := io.ReadAll(stream(strconv.Itoa(size)))
		must(t, err, "message")
		must(t, websocket.Message.Send(socket, message), "send")
		var answer []byte
		must(t, websocket.Message.Receive(socket, &answer), "receive")
		if string(answer) != string(message) {
			t.Fatalf("%d bytes came back changed", size)
		}
	}
}
