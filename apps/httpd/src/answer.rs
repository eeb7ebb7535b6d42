//! Heads of answers, and small answers as a whole.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::request::{Method, Persistence};

/// An answer that is held in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Media type.
    pub media_type: &'static str,
    /// Content.
    pub content: Vec<u8>,
}

/// Media type of JSON.
pub const JSON: &str = "application/json";
/// Media type of pages.
pub const HTML: &str = "text/html; charset=utf-8";
/// Media type of text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Media type of Prometheus' text format.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Answer {
    /// With this content.
    pub fn new(media_type: &'static str, content: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: 200,
            media_type,
            content: content.into(),
        }
    }

    /// A status with its reason as text.
    pub fn status(status: u16) -> Answer {
        Answer {
            status,
            media_type: TEXT,
            content: format!("{status} {}\n", reason(status)).into_bytes(),
        }
    }

    /// A status with a text of one's own.
    pub fn failure(status: u16, text: &str) -> Answer {
        Answer {
            status,
            media_type: TEXT,
            content: format!("{text}\n").into_bytes(),
        }
    }

    /// Its bytes on the wire.
    pub fn bytes(&self, method: Method, persistence: Persistence) -> Vec<u8> {
        let length = self.content.len() as u64;
        let mut bytes = head(self.status, self.media_type, length, "", persistence).into_bytes();
        if method != Method::Head {
            bytes.extend_from_slice(&self.content);
        }
        bytes
    }
}

/// The reason phrase of a status.
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// The head of an answer; `more` are further lines, each with its end.
pub fn head(
    status: u16,
    media_type: &str,
    length: u64,
    more: &str,
    persistence: Persistence,
) -> String {
    let connection = match persistence {
        Persistence::KeepAlive => "keep-alive",
        Persistence::Close => "close",
    };
    let reason = reason(status);
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'self' 'unsafe-inline'; img-src 'self' data:\r\n{more}\r\n"
    )
}

/// Media type of a file by its name.
pub fn media_type(path: &str) -> &'static str {
    let extension = path.rsplit_once('.').map_or("", |(_, e)| e);
    match extension {
        "html" | "htm" => HTML,
        "txt" | "md" | "rs" | "toml" | "cfg" | "log" => TEXT,
        "json" => JSON,
        "css" => "text/css",
        "js" => "text/javascript",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// Text for a page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A name as part of a link.
pub fn encode(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let answer = Answer::new(TEXT, "abc");
        let text = String::from_utf8(answer.bytes(Method::Get, Persistence::Close)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("\r\nContent-Length: 3\r\n") && text.ends_with("\r\n\r\nabc"));
        let head = answer.bytes(Method::Head, Persistence::KeepAlive);
        assert!(head.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("<a b='\"'>&"), "&lt;a b=&#39;&quot;&#39;&gt;&amp;");
        assert_eq!(encode("a b/<ä>".as_bytes()), "a%20b%2F%3C%C3%A4%3E");
    }
}
