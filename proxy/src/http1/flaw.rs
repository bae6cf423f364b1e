//! What can be wrong with an HTTP/1 message, as values with a stable name for the audit record.

/// One way in which bytes are not the HTTP/1.1 that this proxy is willing to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// A line ends in LF without CR.
    #[error("line ends without carriage return")]
    BareLf,
    /// CR that is not followed by LF.
    #[error("carriage return inside a line")]
    BareCr,
    /// A control character where text belongs.
    #[error("control character")]
    Control,
    /// The head is larger than the limit.
    #[error("head is too large")]
    HeadTooLarge,
    /// More header fields than the limit.
    #[error("too many header fields")]
    TooManyHeaders,
    /// The request line is not `method SP target SP version`.
    #[error("request line is not a method, a target and a version")]
    RequestLine,
    /// The target holds a character that a request target cannot hold, or has an unknown form.
    #[error("request target is invalid")]
    Target,
    /// The path is ambiguous: it could be read in two ways behind the proxy.
    #[error("request path is ambiguous: {0}")]
    Path(policy::PathError),
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("protocol version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A header line begins with white space.
    #[error("folded header line")]
    Folded,
    /// A header name is empty or not a token, or white space stands before the colon.
    #[error("header name is invalid")]
    HeaderName,
    /// `Content-Length` occurs more than once.
    #[error("content length is given more than once")]
    LengthRepeated,
    /// `Content-Length` is not a plain number.
    #[error("content length is not a number")]
    LengthInvalid,
    /// `Content-Length` stands beside `Transfer-Encoding`.
    #[error("content length beside transfer encoding")]
    LengthBesideEncoding,
    /// `Transfer-Encoding` is anything but one `chunked`.
    #[error("transfer encoding is not exactly chunked")]
    TransferEncoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    #[error("transfer encoding in HTTP/1.0")]
    EncodingInOldVersion,
    /// No `Host`.
    #[error("host is missing")]
    HostMissing,
    /// More than one `Host`.
    #[error("host is given more than once")]
    HostRepeated,
    /// `Host` is not a host with an optional port.
    #[error("host is invalid")]
    HostInvalid,
    /// The target names another authority than `Host`.
    #[error("host and request target disagree")]
    HostConflict,
    /// A chunk size is not a number of at most 16 hexadecimal digits.
    #[error("chunk size is invalid")]
    ChunkSize,
    /// Chunk extensions are malformed or longer than the limit.
    #[error("chunk extension is invalid or too long")]
    ChunkExtension,
    /// A chunk is not followed by CR LF.
    #[error("chunk does not end where its size says")]
    ChunkEnd,
    /// A trailer line is malformed, or the trailers are larger than the limit.
    #[error("trailer is invalid or too long")]
    Trailer,
    /// A status line is malformed.
    #[error("status line is invalid")]
    StatusLine,
    /// A response that nobody asked for, or a switch of protocols that nobody asked for.
    #[error("response to no request")]
    Unrequested,
    /// A field value of HTTP/2 begins or ends with a blank: servers behind us may or may not remove it.
    #[error("header value begins or ends with a blank")]
    Padded,
    /// The scheme is neither `http` nor `https`.
    #[error("scheme is neither http nor https")]
    Scheme,
    /// A message of HTTP/2 is against the rules of the protocol.
    #[error("message is against the rules of HTTP/2")]
    Message,
    /// A frame of HTTP/2 is against the rules of the protocol.
    #[error("frame is against the rules of HTTP/2")]
    Frame,
    /// Frames of HTTP/2 that cost work and bring nothing forward.
    #[error("too many frames that bring nothing forward")]
    Flood,
}

impl Flaw {
    /// Returns the status that answers a request with this flaw.
    pub(crate) fn status(self) -> http::StatusCode {
        match self {
            Self::HeadTooLarge | Self::TooManyHeaders => http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BareLf
            | Self::BareCr
            | Self::Control
            | Self::RequestLine
            | Self::Target
            | Self::Path(_)
            | Self::Version
            | Self::Folded
            | Self::HeaderName
            | Self::LengthRepeated
            | Self::LengthInvalid
            | Self::LengthBesideEncoding
            | Self::TransferEncoding
            | Self::EncodingInOldVersion
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::HostConflict
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd
            | Self::Trailer
            | Self::StatusLine
            | Self::Unrequested
            | Self::Padded
            | Self::Scheme
            | Self::Message
            | Self::Frame
            | Self::Flood => http::StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the code that the audit record carries; it never changes meaning.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::Control => "control",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::Path(error) => error.reason(),
            Self::Version => "version",
            Self::Folded => "folded",
            Self::HeaderName => "header_name",
            Self::LengthRepeated => "length_repeated",
            Self::LengthInvalid => "length_invalid",
            Self::LengthBesideEncoding => "length_beside_encoding",
            Self::TransferEncoding => "transfer_encoding",
            Self::EncodingInOldVersion => "encoding_in_old_version",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostConflict => "host_conflict",
            Self::ChunkSize => "chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "chunk_end",
            Self::Trailer => "trailer",
            Self::StatusLine => "status_line",
            Self::Unrequested => "unrequested",
            Self::Padded => "padded",
            Self::Scheme => "scheme",
            Self::Message => "message",
            Self::Frame => "frame",
            Self::Flood => "flood",
        }
    }
}
