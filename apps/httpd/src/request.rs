//! Requests (RFC 9110, RFC 9112).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Longest head of a request in bytes.
pub const HEAD_MAX: usize = 16 * 1024;
/// Most header fields of a request.
const HEADERS_MAX: usize = 64;
/// Longest content that is read (and ignored).
pub const CONTENT_MAX: u64 = 64 * 1024;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Content.
    Get,
    /// What content would be like.
    Head,
    /// An action.
    Post,
}

/// Whether the connection goes on after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// It does.
    KeepAlive,
    /// It does not.
    Close,
}

/// A request's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Path, decoded; it starts with a slash.
    pub path: String,
    /// Parameters, decoded, in their order.
    pub query: Vec<(String, String)>,
    /// Field `Range`.
    pub range: Option<String>,
    /// The token of field `Authorization: Bearer`.
    pub token: Option<String>,
    /// What becomes of the connection.
    pub persistence: Persistence,
    /// Bytes of content behind the head.
    pub content_length: u64,
}

impl Request {
    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What some bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The start of a request.
    Partial,
    /// A request and the length of its head.
    Complete(Request, usize),
    /// None: the status to answer with.
    Bad(u16),
}

/// Looks at what was received so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Bad(431);
        }
        Err(_) => return Parsed::Bad(400),
    };
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => return Parsed::Bad(501),
    };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(path) = decode(path, Plus::Literal).filter(|p| p.starts_with('/')) else {
        return Parsed::Bad(400);
    };
    let mut request = Request {
        method,
        path,
        query: pairs(query),
        range: None,
        token: None,
        persistence: match head.version {
            Some(1) => Persistence::KeepAlive,
            _ => Persistence::Close,
        },
        content_length: 0,
    };
    for header in head.headers.iter() {
        let Ok(value) = core::str::from_utf8(header.value) else {
            continue;
        };
        let value = value.trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("range") {
            request.range = Some(value.to_string());
        } else if is("authorization") {
            let token = value.strip_prefix("Bearer ");
            request.token = token.map(|t| t.trim().to_string());
        } else if is("connection") {
            let mut words = value.split(',').map(str::trim);
            if words.any(|word| word.eq_ignore_ascii_case("close")) {
                request.persistence = Persistence::Close;
            }
        } else if is("content-length") {
            match value.parse() {
                Ok(length) if length <= CONTENT_MAX => request.content_length = length,
                Ok(_) => return Parsed::Bad(413),
                Err(_) => return Parsed::Bad(400),
            }
        } else if is("transfer-encoding") {
            // Nothing here takes content whose length is not known.
            return Parsed::Bad(501);
        }
    }
    Parsed::Complete(request, length)
}

/// What a plus sign means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    /// Itself.
    Literal,
    /// A blank, as in forms.
    Blank,
}

/// Text without its percent signs; `None` if it is not text.
fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus == Plus::Blank => b' ',
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, Plus::Blank)?, decode(value, Plus::Blank)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complete(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Complete(request, length) => {
                assert_eq!(length, text.len());
                request
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request() {
        let request = complete(
            "GET /files/a%20b+c?x=1&y=a+b%26&z HTTP/1.1\r\nHost: h\r\nrange: bytes=0-1\r\n\
             Authorization: Bearer abc\r\n\r\n",
        );
        assert_eq!(request.path, "/files/a b+c");
        assert_eq!(request.parameter("y"), Some("a b&"));
        assert_eq!(request.parameter("z"), Some(""));
        assert_eq!(request.range.as_deref(), Some("bytes=0-1"));
        assert_eq!(request.token.as_deref(), Some("abc"));
        assert_eq!(request.persistence, Persistence::KeepAlive);
        let old = complete("HEAD / HTTP/1.0\r\n\r\n");
        assert_eq!(
            (old.method, old.persistence),
            (Method::Head, Persistence::Close)
        );
        let close =
            complete("POST / HTTP/1.1\r\nConnection: x, Close\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(
            (close.persistence, close.content_length),
            (Persistence::Close, 3)
        );
    }

    #[test]
    fn what_is_no_request() {
        for (text, status) in [
            ("GET", None),
            ("GET / HTTP/1.1\r\nA: b\r\n", None),
            ("\x16\x03\x01", Some(400)),
            ("GET a HTTP/1.1\r\n\r\n", Some(400)),
            ("GET /%0 HTTP/1.1\r\n\r\n", Some(400)),
            ("GET /%00 HTTP/1.1\r\n\r\n", Some(400)),
            ("GET /%ff HTTP/1.1\r\n\r\n", Some(400)),
            ("BREW / HTTP/1.1\r\n\r\n", Some(501)),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Some(501),
            ),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Some(400)),
            (
                "POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
                Some(413),
            ),
        ] {
            let expected = status.map_or(Parsed::Partial, Parsed::Bad);
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
        let long = alloc::format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(HEAD_MAX));
        assert_eq!(parse(long.as_bytes()), Parsed::Bad(431));
        let many = alloc::format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(HEADERS_MAX + 1)
        );
        assert_eq!(parse(many.as_bytes()), Parsed::Bad(431));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_path_is_survived(path in "/[ -~]{0,40}") {
            let _ = parse(alloc::format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        }
    }
}
